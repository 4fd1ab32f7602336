"""Probes, neighbours, failure prediction and measures against their rivals: ``python -m benchmarks.probes``."""
