"""Where in an image the evidence lies: heat maps of features, and their overlap with annotated masks."""

from qscore_fast.saliency.heat_maps import HeatMaps
from qscore_fast.saliency.heatmaps import heatmaps
from qscore_fast.saliency.overlay import crop_box, overlay, save_overlay

__all__ = ["HeatMaps", "crop_box", "heatmaps", "overlay", "save_overlay"]
