"""A ResNet-18 with r = 512, trained with SimCLR on Fashion-MNIST until it is sparse."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import qscore_fast as qf
from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import QScoreError, SettingsError
from qscore_fast.evaluation.measures import measure_run
from qscore_fast.finetuning import Settings, untrained_encoder
from qscore_fast.images import Source
from qscore_fast.images.sources.subset import Subset
from qscore_fast.scoring.atomic import replacing

from .estimate import Estimate
from .fashion_mnist import PREPROCESS
from .pretraining import pretrain
from .step_time import num_steps, step_seconds
from .steps import Steps

NAME = "resnet18"
SYSTEM = "simclr"
# Of the entries of its representations at most this share is not 0 (``sparsity_l0``): half as sparse as the
# bundled encoder's.
SPARSE = 0.2
SAMPLE = 4096

# Images of 28 x 28 are seen through crops of twice the usual area, as those of Table 2.
_SETTINGS = Settings(
    regulariser="none", optimiser="adamw", lr=1e-3, weight_decay=1e-4, batch_size=256,
    objective={"temperature": 0.2}, crop_scale=2.0, views_on_device=True, channels_last=True, keep=0,
    tensorboard=False, monitor_every=100, save_every=50,
)  # fmt: skip


@dataclass(frozen=True)
class Rounds:
    """Warm restarts (SGDR, ICLR 2017): each round goes on from the last and is twice as long.

    Attributes:
        first_epochs: of the first round.
        most: how many there are, unless the encoder is sparse before.

    Raises:
        SettingsError: either is below 1.
    """

    first_epochs: int = 10
    most: int = 6

    def __post_init__(self) -> None:
        if self.first_epochs < 1 or self.most < 1:
            raise SettingsError(
                f"{self.most} rounds from {self.first_epochs} epochs on are no training: give "
                "--pretraining-rounds and --pretraining-epochs of 1 or more"
            )

    def settings(self) -> list[Settings]:
        """Of each round."""
        return [
            replace(_SETTINGS, epochs=self.first_epochs * 2**index, seed=index)
            for index in range(self.most)
        ]


def untrained() -> Encoder:
    """What the first round begins with."""
    return untrained_encoder(SYSTEM, PREPROCESS, block="basic", layers=(2, 2, 2, 2))


def pretrained(
    images: Source,
    rounds: Rounds,
    folder: Path,
    say: Callable[[str], None],
    device: str = "cpu",
) -> tuple[Path, dict[str, Any]]:
    """Train round by round; what ``folder`` holds is not done again, and a round that was stopped goes on.

    Args:
        images: to train on; labels are not used.

    Returns:
        The checkpoint, in SimCLR's layout, and how it came about in plain values: ``architecture``,
        ``first_active`` (the share of entries that are not 0 before training), ``rounds`` with theirs, and
        ``sparse``, whether the last one is at most ``SPARSE``.
    """
    steps, start = Steps(folder, say), untrained()
    key = {"images": images.manifest_hash}
    first = steps.run(
        "untrained",
        key | {"start": start.fingerprint},
        lambda place: {"active": active_share(start, images, place, device)},
    )
    say(f"share of entries that are not 0 before training: {first['active']:.3f}")
    done: list[dict[str, Any]] = []
    for number, settings in enumerate(rounds.settings(), start=1):
        checkpoint = folder / f"round-{number}.pth"
        work = partial(
            _round, start, images, settings, folder / f"training-{number}", checkpoint, device
        )
        done.append(
            steps.run(
                f"round-{number}",
                key | {"settings": settings.asked(), "start": start.fingerprint},
                work,
            )
        )
        say(f"share of entries that are not 0 after round {number}: {done[-1]['active']:.3f}")
        if done[-1]["active"] <= SPARSE:
            break
        start = load_encoder(checkpoint, SYSTEM, device="cpu")
    path = folder / f"{NAME}.pth"
    with replacing(path) as temporary:
        shutil.copyfile(checkpoint, temporary)
    return path, {
        "architecture": start.architecture,
        "first_active": first["active"],
        "rounds": done,
        "sparse": done[-1]["active"] <= SPARSE,
        "sparse_below": SPARSE,
    }


def _round(
    start: Encoder,
    images: Source,
    settings: Settings,
    training: Path,
    checkpoint: Path,
    device: str,
    place: Path,
) -> dict[str, Any]:
    """One round: its training, its checkpoint, and how sparse that is."""
    made = pretrain(start, images, settings, training, checkpoint, device)
    return {
        "epochs": settings.epochs,
        "steps": made["steps"],
        "first_loss": made["first_ssl"],
        "last_loss": made["last_ssl"],
        "active": active_share(
            load_encoder(checkpoint, SYSTEM, device="cpu"), images, place, device
        ),
    }


def active_share(encoder: Encoder, images: Source, place: Path, device: str) -> float:
    """Share of the representations' entries that are not 0, over about ``SAMPLE`` of the images."""
    count = images.num_samples
    sample = images if count is None or count <= SAMPLE else Subset(images, share=SAMPLE / count)
    run = qf.score(sample, encoder, place / "run", eps=2.0, embeddings="npy", device=device)
    share = measure_run(run, device=device)["sparsity_l0"].value
    if share is None:
        raise QScoreError(
            f"no representation of {encoder.name} is finite, so none says how sparse it is"
        )
    return share


def training_time(images: Source, rounds: Rounds, folder: Path, device: str) -> Estimate:
    """Of all rounds that are left, as if the encoder became sparse in the last."""
    start, settings = untrained(), rounds.settings()
    steps = Steps(folder, lambda _: None)
    records = [steps.recorded(f"round-{number}") for number in range(1, rounds.most + 1)]
    left = [one for one, record in zip(settings, records, strict=True) if record is None]
    if not left or any(record["result"]["active"] <= SPARSE for record in records if record):
        return Estimate("pre-training", 0, "done before")
    seconds = step_seconds(start, images, settings[0], device)
    count = sum(num_steps(start, images, one, folder) for one in left)
    return Estimate(
        "pre-training",
        seconds * count,
        f"{count:,} steps of {1000 * seconds:,.0f} ms at most; fewer if it is sparse before",
    )
