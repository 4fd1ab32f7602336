"""A run of any size in the browser, from this machine alone; see docs/report.md."""

from qscore_fast.report.serve.run_server import serve

__all__ = ["serve"]
