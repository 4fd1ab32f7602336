"""What one writes in an afternoon to score a folder: torchvision, a data loader, the formula, one list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torchvision import datasets, models, transforms

BATCH = 64


def resnet50() -> torch.nn.Module:
    """Random weights, the same each time; the 2,048 pooled features are its output."""
    torch.manual_seed(0)
    module = models.resnet50(weights=None)
    module.fc = torch.nn.Identity()
    return module.eval()


@torch.no_grad()
def representations(folder: Path, workers: int) -> torch.Tensor:
    """(images, 2048) float32, in the order of ImageFolder."""
    transform = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(folder), transform), batch_size=BATCH, num_workers=workers
    )
    module = resnet50()
    return torch.cat([module(images) for images, _ in loader])


def q_scores(h: torch.Tensor, eps: float, mask: torch.Tensor | None = None) -> torch.Tensor:
    """(images,): the formula of the paper; without a ``mask`` D is between the 50th and 95th percentile."""
    z = (h - h.mean(dim=1, keepdim=True)) / h.std(dim=1, keepdim=True)
    active = z > eps
    if mask is None:
        percent = 100 * active.float().mean(dim=0)
        lower, upper = np.percentile(percent.numpy(), [50, 95])
        mask = (percent >= lower) & (percent <= upper)
    active &= mask
    value = (h - h.mean(dim=1, keepdim=True)) / h.norm(dim=1, keepdim=True)
    return (value * active).sum(dim=1) / active.sum(dim=1).clamp(min=1)


def main(folder: Path, workers: int, eps: float) -> list[float]:
    """One score an image, all in memory."""
    return q_scores(representations(folder, workers), eps).tolist()
