"""The paper's own Table 2, to stand beside ours (Kalibhat et al., AAAI 2024)."""

from __future__ import annotations

# Top-1 of the linear probe in per cent, without and with Q-Score: ImageNet-100 (ResNet-18), then
# ImageNet-1K (ResNet-50). By our names of the systems.
TABLE_2 = {
    "simclr": ((78.64, 80.79), (63.80, 66.18)),
    "swav": ((74.36, 78.90), (69.95, 71.05)),
    "moco": ((79.62, 85.16), (67.03, 69.31)),
    "byol": ((80.88, 86.72), (69.14, 72.81)),
    "dino": ((75.41, 76.39), (75.52, 75.78)),
    "simsiam": ((78.80, 81.41), (68.62, 70.47)),
    "vicreg": ((79.77, 81.56), (73.63, 74.72)),
    "barlow_twins": ((80.63, 81.03), (67.85, 69.58)),
}

NAMES = {
    "simclr": "SimCLR", "swav": "SwAV", "moco": "MoCo v1", "moco_v2": "MoCo v2", "moco_v3": "MoCo v3",
    "byol": "BYOL", "dino": "DINO", "simsiam": "SimSiam", "vicreg": "VICReg",
    "barlow_twins": "Barlow Twins",
}  # fmt: skip


def of_system(system: str) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """The paper's figures; its "MoCo" stands for every version of it."""
    return TABLE_2.get("moco" if system.startswith("moco") else system)
