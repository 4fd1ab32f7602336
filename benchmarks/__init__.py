"""Benchmarks: run with ``make bench`` on the CPU and ``make gpu`` on a GPU."""
