"""The paper's own figures, to stand beside ours (Kalibhat et al., AAAI 2024)."""

from __future__ import annotations

# Table 1, ImageNet-100, ResNet-18: AUROC and AUPRC in per cent, and the probe's accuracy (Table 2, base),
# which is the AUPRC of a constant score.
TABLE_1 = {
    "SimCLR": (73.26, 91.11, 78.64),
    "SwAV": (62.30, 81.18, 74.36),
    "MoCo": (63.09, 84.59, 79.62),
    "BYOL": (72.78, 91.45, 80.88),
    "SimSiam": (66.97, 86.05, 78.80),
    "DINO": (62.57, 83.03, 75.41),
    "VICReg": (69.68, 89.06, 79.77),
    "Barlow Twins": (69.57, 90.06, 80.63),
}

# Fig. 2, ImageNet-1K, ResNet-50, read off the figure to +-0.4: top-1 in per cent with all features, then
# with these shares kept: discriminative features, and random ones.
FIG_2_SHARES = (0.7, 0.6, 0.5, 0.4, 0.2)
FIG_2 = {
    "SimCLR": (63.7, (62.3, 61.9, 60.6, 59.2, 47.9), (60.0, 57.9, 54.2, 50.4, 38.0)),
    "SwAV": (69.9, (67.5, 66.8, 63.7, 62.1, 55.9), (65.9, 62.8, 59.0, 55.1, 34.5)),
    "MoCo": (66.9, (66.0, 65.6, 64.3, 60.1, 48.7), (63.6, 61.4, 58.8, 55.6, 45.0)),
    "BYOL": (68.6, (67.6, 66.7, 65.2, 62.9, 56.1), (65.5, 63.4, 62.7, 59.8, 49.0)),
    "DINO": (75.3, (73.6, 72.7, 71.1, 69.0, 61.7), (71.6, 70.4, 68.6, 65.8, 54.7)),
    "SimSiam": (68.1, (66.5, 65.6, 64.0, 60.8, 50.8), (65.3, 63.2, 60.4, 56.6, 48.6)),
    "VICReg": (73.2, (71.4, 70.3, 65.7, 61.9, 50.4), (67.9, 65.8, 60.2, 54.3, 43.4)),
    "Barlow Twins": (67.1, (66.1, 65.5, 64.1, 61.2, 50.4), (64.9, 62.6, 58.1, 54.2, 43.4)),
}
