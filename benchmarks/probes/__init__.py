"""Probes, neighbours, failure prediction, measures against their rivals: ``python -m benchmarks.probes``."""
