"""Where in an image the evidence lies: heat maps of features, and their overlap with annotated masks."""

from importlib.util import find_spec

from qscore_fast.saliency.heat_maps import HeatMaps
from qscore_fast.saliency.heatmaps import heatmaps
from qscore_fast.saliency.overlap import MEASURES, Overlap, OverlapSettings, overlap
from qscore_fast.saliency.overlay import crop_box, overlay, save_overlay
from qscore_fast.saliency.salient_imagenet import SalientImageNet

if find_spec("pyarrow"):  # heat maps run from a source tree that has the kernels' libraries alone
    from qscore_fast.saliency.interpret import Compared, interpret
    from qscore_fast.saliency.interpretation import Interpretation

__all__ = [
    "HeatMaps",
    "crop_box",
    "heatmaps",
    "overlay",
    "save_overlay",
    "SalientImageNet",
    "MEASURES",
    "Overlap",
    "OverlapSettings",
    "overlap",
    "Interpretation",
    "Compared",
    "interpret",
]
