"""pytest-benchmark over the registry, for batches where the call weighs more than the memory."""
