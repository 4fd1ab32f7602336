"""Train the bundled demo encoder on the Fashion-MNIST training images, without labels.

    python examples/pretrain_demo_encoder.py
    python examples/probe_demo_encoder.py

The objective is SimCLR's NT-Xent on the projections of two views of every image (Chen et al., ICML
2020), plus the same loss on the non-negative representations themselves (Wang et al.,
"Non-negative Contrastive Learning", ICLR 2024). The second term makes the features sparse: the
representations of unrelated images can only be made orthogonal by disjoint sets of features.
"""

import argparse
import io
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from make_demo_data import DEMO_DATA, FASHION_MNIST, read_idx
from torch import Tensor, nn

from qscore_fast.encoders.networks.small_resnet import SmallResNet

MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images, pixels in [0, 1]
ARCHITECTURE: dict[str, Any] = {
    "stem_channels": 32,
    "stem_stride": 2,
    "planes": [16, 32, 64, 128],
    "blocks": [1, 2, 2, 1],
    "strides": [1, 2, 2, 2],
}


def uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    """``count`` draws from [low, high)."""
    return torch.empty(count, device=device).uniform_(low, high)


def random_view(images: Tensor, min_area: float, jitter: float) -> Tensor:
    """One random view of each image.

    Args:
        images: (B, 1, H, W), values in [0, 1].
        min_area: smallest share of the image's area that a crop keeps; aspect ratio 3/4 to 4/3.
        jitter: brightness and contrast are multiplied by 1 - jitter to 1 + jitter.

    Returns:
        (B, 1, H, W), values in [0, 1].
    """
    batch, device = len(images), images.device

    # Crop, resize and flip in one bilinear read; grid coordinates run from -1 to 1.
    side = uniform(batch, min_area, 1, device).sqrt()
    aspect = uniform(batch, math.log(3 / 4), math.log(4 / 3), device).exp().sqrt()
    scale_x, scale_y = (side * aspect).clamp(max=1), (side / aspect).clamp(max=1)
    theta = torch.zeros(batch, 2, 3, device=device)
    theta[:, 0, 0] = scale_x * torch.where(torch.rand(batch, device=device) < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = scale_y
    theta[:, 0, 2] = (1 - scale_x) * uniform(batch, -1, 1, device)
    theta[:, 1, 2] = (1 - scale_y) * uniform(batch, -1, 1, device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    view = F.grid_sample(images, grid, align_corners=False, padding_mode="border")

    brightness = uniform(batch, 1 - jitter, 1 + jitter, device).view(-1, 1, 1, 1)
    contrast = uniform(batch, 1 - jitter, 1 + jitter, device).view(-1, 1, 1, 1)
    view = view * brightness
    mean = view.mean(dim=(2, 3), keepdim=True)
    return erase(((view - mean) * contrast + mean).clamp(0, 1))


def erase(view: Tensor) -> Tensor:
    """Paint a random rectangle, of a quarter to a half of each side, grey in half of the images."""
    batch, _, height, width = view.shape
    device = view.device

    def inside(size: int) -> Tensor:
        length = uniform(batch, size / 4, size / 2, device)
        start = (size - length) * uniform(batch, 0, 1, device)
        place = torch.arange(size, device=device)
        return (place >= start[:, None]) & (place < (start + length)[:, None])

    chosen = torch.rand(batch, device=device) < 0.5
    rectangle = inside(height)[:, :, None] & inside(width)[:, None, :] & chosen[:, None, None]
    grey = uniform(batch, 0, 1, device).view(-1, 1, 1, 1)
    return torch.where(rectangle[:, None], grey, view)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent: cross-entropy that picks each vector's partner among the other 2B - 1.

    Args:
        first, second: (B, d), the two views of the same images in the same order.
        temperature: divisor of the cosine similarities.
    """
    vectors = F.normalize(torch.cat([first, second]), dim=1)
    logits = vectors @ vectors.T / temperature
    logits.fill_diagonal_(-math.inf)
    partner = torch.arange(len(vectors), device=vectors.device).roll(len(first))
    return F.cross_entropy(logits, partner)


def build_projector(num_features: int, hidden: int, out: int) -> nn.Sequential:
    """SimCLR's two-layer projector with batch norm after both layers."""
    return nn.Sequential(
        nn.Linear(num_features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out, bias=False),
        nn.BatchNorm1d(out),
    )


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for the vectors of batch norm."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def learning_rate_factor(progress: float, warmup: float) -> float:
    """Linear warm-up from 0 to 1, then half a cosine down to 0.

    Args:
        progress: share of the training that is done, 0 to 1.
        warmup: share of the training that the warm-up takes, 0 to 1.
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def half_precision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict's floating tensors as float16 on the CPU; counters stay integers."""
    return {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in state.items()
    }


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the name and rename, so that the file exists whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def save(
    out: Path, encoder: SmallResNet, projector: nn.Sequential, training: dict[str, Any]
) -> None:
    """Write the checkpoint to ``out`` and the training log to the .json beside it."""
    checkpoint = {
        "format": "qscore-fast.encoder",
        "format_version": 1,
        "system": "simclr",
        "architecture": {"name": "small_resnet", "arguments": ARCHITECTURE},
        "num_features": encoder.num_features,
        "preprocess": {
            "mode": "L",
            "resize": 28,
            "crop": 28,
            "interpolation": "bilinear",
            "mean": [MEAN],
            "std": [STD],
        },
        "state_dict": half_precision(encoder.state_dict()),
        "heads": {"projector": half_precision(projector.state_dict())},
        "training": {
            key: training[key] for key in ("objective", "data", "epochs", "epochs_done", "seed")
        },
    }
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, buffer.getvalue())
    log = json.dumps({"training": training}, indent=2) + "\n"
    write_whole(out.with_suffix(".json"), log.encode())


def machine(device: torch.device) -> str:
    """What the training runs on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU cores"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=FASHION_MNIST, help="folder of the original idx.gz files")
    add("--out", type=Path, default=DEMO_DATA / "encoder.pth", help="checkpoint; log beside it")
    add("--start", type=Path, help="checkpoint to continue from, its log beside it; new schedule")
    add("--epochs", type=int, default=32, help="passes over the training images")
    add(
        "--minutes",
        type=float,
        default=math.inf,
        help="time limit; the schedule follows whichever of epochs and minutes ends first",
    )
    add("--batch-size", type=int, default=512, help="images a step, two views each")
    add("--learning-rate", type=float, default=2e-3, help="AdamW's, at the end of the warm-up")
    add("--weight-decay", type=float, default=1e-2, help="AdamW's, for matrices and kernels")
    add("--warmup", type=float, default=0.03, help="share of linear warm-up; cosine to 0 follows")
    add("--temperature", type=float, default=0.2, help="of the loss on projections")
    add("--feature-temperature", type=float, default=0.1, help="of the loss on representations")
    add("--feature-weight", type=float, default=0.25, help="weight of that loss; more: sparser")
    add(
        "--feature-bias",
        type=float,
        default=-1.0,
        help="bias of the last batch norm at the very start; below 0 the features start sparse",
    )
    add("--min-area", type=float, default=0.3, help="smallest share of the image in a crop")
    add("--jitter", type=float, default=0.4, help="strength of the brightness and contrast jitter")
    add("--seed", type=int, default=0, help="of weights, order and views")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    pixels = torch.from_numpy(read_idx(args.data / "train-images-idx3-ubyte.gz").copy())
    pixels = pixels.unsqueeze(1).to(device)

    encoder = SmallResNet(**ARCHITECTURE)
    nn.init.constant_(encoder.stages[-1][-1].bn3.bias, args.feature_bias)
    projector = build_projector(encoder.num_features, 512, 128)
    if args.start is not None:
        checkpoint = torch.load(args.start, map_location="cpu", weights_only=True)
        encoder.load_state_dict(checkpoint["state_dict"])
        projector.load_state_dict(checkpoint["heads"]["projector"])
        earlier = json.loads(args.start.with_suffix(".json").read_text(encoding="utf-8"))
    encoder.to(device, memory_format=torch.channels_last)
    projector.to(device)
    optimizer = torch.optim.AdamW(
        parameter_groups(nn.ModuleList([encoder, projector]), args.weight_decay),
        lr=args.learning_rate,
    )
    steps_per_epoch = len(pixels) // args.batch_size

    unlogged = ("data", "out", "start", "minutes")
    training: dict[str, Any] = {
        "objective": "NT-Xent on projections (SimCLR) + NT-Xent on representations (NCL)",
        "data": f"Fashion-MNIST, {len(pixels)} training images, no labels",
        "architecture": {"name": "small_resnet", "arguments": ARCHITECTURE},
        "projector": "Linear 512-512, BN, ReLU, Linear 512-128, BN; no biases",
        "optimizer": "AdamW, bfloat16 autocast",
        **{key: value for key, value in vars(args).items() if key not in unlogged},
        "machine": machine(device),
        "torch": torch.__version__,
        "epochs_done": 0,
        "projection_loss_by_epoch": [],
        "feature_loss_by_epoch": [],
        "seconds_by_epoch": [],
    }
    if math.isfinite(args.minutes):
        training["minutes"] = args.minutes
    if args.start is not None:
        training["continues"] = earlier["training"]

    begun = time.monotonic()
    steps = 0
    progress = 0.0
    while progress < 1:
        started = time.monotonic()
        steps_before = steps
        order = torch.randperm(len(pixels), device=device)[: steps_per_epoch * args.batch_size]
        totals = torch.zeros(2, device=device)
        for indices in order.split(args.batch_size):
            images = pixels[indices].float() / 255
            views = torch.cat([random_view(images, args.min_area, args.jitter) for _ in range(2)])
            views = ((views - MEAN) / STD).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16):
                features = encoder(views)
                projections = projector(features)
            projection_loss = nt_xent(*projections.float().chunk(2), args.temperature)
            feature_loss = nt_xent(*features.float().chunk(2), args.feature_temperature)
            for group in optimizer.param_groups:
                group["lr"] = args.learning_rate * learning_rate_factor(progress, args.warmup)
            optimizer.zero_grad(set_to_none=True)
            (projection_loss + args.feature_weight * feature_loss).backward()
            optimizer.step()
            totals += torch.stack([projection_loss, feature_loss]).detach()

            steps += 1
            progress = max(
                steps / (args.epochs * steps_per_epoch),
                (time.monotonic() - begun) / (60 * args.minutes),
            )
            if progress >= 1:
                break

        mean_projection_loss, mean_feature_loss = (totals / (steps - steps_before)).tolist()
        seconds = time.monotonic() - started
        training["epochs_done"] = round(steps / steps_per_epoch, 2)
        training["projection_loss_by_epoch"].append(round(mean_projection_loss, 4))
        training["feature_loss_by_epoch"].append(round(mean_feature_loss, 4))
        training["seconds_by_epoch"].append(round(seconds, 1))
        save(args.out, encoder, projector, training)
        print(
            f"epoch {training['epochs_done']:g}: projections {mean_projection_loss:.4f}, "
            f"features {mean_feature_loss:.4f}, {seconds:.0f} s, {100 * progress:.0f} % done",
            flush=True,
        )


if __name__ == "__main__":
    main()
