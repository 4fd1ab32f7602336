"""Measure the bundled demo encoder: linear probe, sparsity, activations, discriminative features.

    python examples/probe_demo_encoder.py

Reads the checkpoint that `pretrain_demo_encoder.py` wrote (its float16 weights, cast to float32)
and adds the figures to the training log beside it under the key "probe".
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from make_demo_data import DEMO_DATA, FASHION_MNIST, read_idx
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from qscore_fast.encoders.networks.small_resnet import SmallResNet

THRESHOLDS = (4.0, 3.5, 3.0, 2.5, 2.0)  # eps, in standard deviations above the row's mean
NEAR_ZERO = 0.01  # of the row's largest entry
INVERSE_PENALTY = 0.03  # C of the linear probe


def load(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Encoder in float32 and evaluation mode, with its checkpoint."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    encoder = SmallResNet(**checkpoint["architecture"]["arguments"])
    encoder.load_state_dict(checkpoint["state_dict"])
    return encoder.eval(), checkpoint


@torch.inference_mode()
def represent(
    encoder: nn.Module, pixels: NDArray[np.uint8], mean: float, std: float, device: torch.device
) -> Tensor:
    """Representations (N, r) on the CPU of images (N, 28, 28) with values 0 to 255."""
    encoder.to(device)
    batches = torch.from_numpy(pixels.copy()).unsqueeze(1).split(1000)
    return torch.cat([encoder((b.to(device) / 255 - mean) / std).cpu() for b in batches])


def highly_active(h: Tensor, eps: float) -> Tensor:
    """Mask (N, r) of the entries above their row's mean + eps * std (Bessel's correction)."""
    return h > h.mean(dim=1, keepdim=True) + eps * h.std(dim=1, keepdim=True)


def linear_probe(
    train: Tensor, train_labels: NDArray[np.uint8], test: Tensor, test_labels: NDArray[np.uint8]
) -> dict[str, float]:
    """Top-1 of multinomial logistic regression on standardised features, in percent."""
    scaler = StandardScaler().fit(train.numpy())
    probe = LogisticRegression(C=INVERSE_PENALTY, max_iter=500)
    probe.fit(scaler.transform(train.numpy()), train_labels)
    return {
        "iterations": int(probe.n_iter_[0]),
        "train_top1_percent": 100 * probe.score(scaler.transform(train.numpy()), train_labels),
        "test_top1_percent": 100 * probe.score(scaler.transform(test.numpy()), test_labels),
    }


def activation_figures(train: Tensor, test: Tensor, eps: float) -> dict[str, float]:
    """|L| on the test rows, D from the train rows, and the share of test rows that D misses.

    D: features whose activation percentage lies between the 50th and the 95th percentile over all
    features, ends included, and is not 0.
    """
    percent = 100 * highly_active(train, eps).double().mean(dim=0).numpy()
    lower, upper = np.percentile(percent, [50, 95])
    discriminative = torch.from_numpy((percent >= lower) & (percent <= upper) & (percent > 0))
    active = highly_active(test, eps)
    return {
        "mean_highly_active": active.sum(dim=1).double().mean().item(),
        "share_without_highly_active": (~active.any(dim=1)).double().mean().item(),
        "num_discriminative": int(discriminative.sum()),
        "num_never_active": int((percent == 0).sum()),
        "share_without_active_discriminative": (
            (~(active & discriminative).any(dim=1)).double().mean().item()
        ),
    }


def sparsity(h: Tensor) -> dict[str, float]:
    """Shares of zero and nearly zero entries of h (N, r), and the features that never respond."""
    near = h < NEAR_ZERO * h.amax(dim=1, keepdim=True)
    return {
        "zeros_share": (h == 0).double().mean().item(),
        f"below_{NEAR_ZERO}_of_row_maximum_share": near.double().mean().item(),
        "num_features_always_zero": int((h == 0).all(dim=0).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=FASHION_MNIST, help="the original idx.gz files"
    )
    parser.add_argument("--checkpoint", type=Path, default=DEMO_DATA / "encoder.pth")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    encoder, checkpoint = load(args.checkpoint)
    features, labels = {}, {}
    for split in ("train", "t10k"):
        labels[split] = read_idx(args.data / f"{split}-labels-idx1-ubyte.gz")
        features[split] = represent(
            encoder,
            read_idx(args.data / f"{split}-images-idx3-ubyte.gz"),
            checkpoint["preprocess"]["mean"][0],
            checkpoint["preprocess"]["std"][0],
            torch.device(args.device),
        )
    figures: dict[str, Any] = {
        "weights": "as stored (float16), computed in float32",
        "checkpoint_bytes": args.checkpoint.stat().st_size,
        "train_images": len(labels["train"]),
        "test_images": len(labels["t10k"]),
        "linear_probe": {
            "method": f"LogisticRegression(C={INVERSE_PENALTY}) on standardised features",
            "scikit_learn": sklearn.__version__,
            **linear_probe(features["train"], labels["train"], features["t10k"], labels["t10k"]),
        },
        "sparsity_test": sparsity(features["t10k"]),
        "by_eps": {
            f"{eps:g}": activation_figures(features["train"], features["t10k"], eps)
            for eps in THRESHOLDS
        },
    }
    print(json.dumps(figures, indent=2))

    log_path = args.checkpoint.with_suffix(".json")
    log = json.loads(log_path.read_text(encoding="utf-8"))
    log["probe"] = figures
    log_path.write_text(json.dumps(log, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
