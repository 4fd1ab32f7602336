"""The demo: the main job, from images to scores, on data that comes with the package."""

from qscore_fast.demo.run_demo import DemoResult, run_demo

__all__ = ["DemoResult", "run_demo"]
