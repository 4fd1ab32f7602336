"""``python -m benchmarks.table2``: eight systems trained further with and without Q-Score."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import QScoreError, SettingsError
from qscore_fast.finetuning.comparison import ARMS
from qscore_fast.images import Source, open_source

from ..environment import ROOT, describe
from ..results import RESULTS, write
from ..science import fashion_mnist
from ..science.imagenet import imagenet_sources
from ..science.listing import listing
from ..science.pretraining import pretrain
from ..science.steps import Steps
from .comparing import compare_arms
from .document import publish
from .estimate import estimate, told
from .paper_rate import moved_at_both_rates
from .plan import Plan, plan_of
from .small_systems import small_encoder
from .untrained import untrained


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        path = run(options)
    except QScoreError as error:
        say(f"error: {error}")
        return 2
    say(f"written {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table2", description=__doc__)
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        required=True,
        help="the experiment's folder; what it holds is not done again",
    )
    add("--data", type=Path, default=fashion_mnist.DEFAULT, help="Fashion-MNIST's four files")
    add("--images", type=int, default=12_000, help="of Fashion-MNIST, to train on")
    add("--labelled", type=int, default=6_000, help="of these, for D and to train the probes on")
    add("--test-images", type=int, default=10_000)
    add("--pretraining-steps", type=int, default=600)
    add(
        "--imagenet",
        type=Path,
        help="ImageNet-1K instead, in any of its layouts; needs --checkpoints",
    )
    add("--classes", help="of ImageNet, these alone: imagenet100, or a file of wnids")
    add("--checkpoints", nargs="+", default=[], metavar="SYSTEM=FILE", help="start from these")
    add("--systems", nargs="+", help="these alone; several processes can share an experiment so")
    add("--pretrain-only", action="store_true", help="make the checkpoints, train none further")
    add("--arms", nargs="+", default=list(ARMS))
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--lr", type=float, help="of the further training; on ImageNet the paper's 1e-5 by default")
    add("--epochs", type=int)
    add("--steps", type=int)
    add("--batch-size", type=int)
    add("--lambda1", type=float)
    add("--lambda2", type=float)
    add("--image-size", type=int)
    add("--workers", type=int)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--no-estimate", action="store_true", help="measure no steps first")
    add("--results", type=Path, default=RESULTS, help="where the JSON file goes")
    add("--document", type=Path, help="write table2.md and its figure to this folder, too")
    return parser


def run(options: argparse.Namespace) -> Path:
    """Run the experiment; the path of its results."""
    plan = plan_of(options)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.pretrain_only:
        return _pretrain_only(plan, options)
    name, images, labelled = _sources(options)
    listed = listing(labelled["train"], labelled["test"])
    say(f"to train on: {_count(images)}; for the probes: {listed.line()}")
    starts = {system: _start(plan, system) for system in plan.systems}
    if not options.no_estimate:
        told(estimate(plan, starts, images, listed, options.out, options.device), say)
    steps = Steps(options.out, say)
    data = {
        "name": name,
        "images": _count(images),
        "probes": listed.line(),
        "num_test": listed.num_test,
    }
    found, stopped = [], {}
    for system in plan.systems:
        try:
            found.append(_system(plan, system, steps, data, images, labelled, options))
        except QScoreError as error:
            if isinstance(error, SettingsError):
                raise
            say(f"{system} stopped: {error}")
            stopped[system] = str(error)
    if not found:
        raise QScoreError("no system was finished; the reasons are above")
    result = {
        "environment": describe(torch.device(options.device)),
        "data": data,
        "plan": plan.to_json(),
        "systems": found,
        "stopped": stopped,
    }
    path = write(result, options.results, "table2")
    if options.document is not None:
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
        publish(result | {"file": str(shown)}, options.document)
        say(f"written {options.document / 'table2.md'}")
    return path


def _sources(options: argparse.Namespace) -> tuple[str, Source, dict[str, Source]]:
    """The data set's name, the images to train on, and those of the probes."""
    if options.imagenet is not None:
        sources = imagenet_sources(options.imagenet, options.classes)
        name = (
            "ImageNet-1K" if options.classes is None else f"ImageNet-1K, classes {options.classes}"
        )
        return name, sources["train"], sources
    place = options.out / "images"
    train = _to_train_on(options)
    probes = {
        "train": fashion_mnist.class_folders(options.data, place, options.labelled)["train"],
        "test": fashion_mnist.class_folders(options.data, place, options.test_images)["test"],
    }
    return (
        "Fashion-MNIST",
        train,
        {split: open_source(path) for split, path in probes.items()},
    )


def _start(plan: Plan, system: str) -> Encoder:
    if plan.pretraining is not None:
        return small_encoder(system)
    return load_encoder(plan.checkpoints[system], system, device="cpu")


def _system(
    plan: Plan,
    system: str,
    steps: Steps,
    data: dict[str, Any],
    images: Source,
    labelled: dict[str, Source],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """One row of the table; its work lies in a folder of its own, so that trainings go on, too."""
    work = options.out / system
    work.mkdir(exist_ok=True)
    made = None
    if plan.pretraining is not None:
        checkpoint, made = _pretrained(plan, system, steps, images, options)
    else:
        checkpoint = plan.checkpoints[system]
    encoder = load_encoder(checkpoint, system, device="cpu")
    settings = plan.tuning_of(system)
    compared = steps.run(
        f"{system}-arms",
        {
            "settings": settings.asked(),
            "arms": plan.arms,
            "seeds": plan.seeds,
            "encoder": encoder.fingerprint,
            "data": data,
        },
        lambda _: compare_arms(
            encoder, images, labelled, settings, plan.arms, plan.seeds, work, options.device, say
        ),
    )
    before = moved = None
    if plan.pretraining is not None:
        before = steps.run(
            f"{system}-untrained",
            {"encoder": small_encoder(system).fingerprint, "data": data},
            lambda place: untrained(system, labelled, place, options.device),
        )
    if plan.pretraining is not None and "qscore" in plan.arms:
        moved = steps.run(
            f"{system}-paper-rate",
            {"settings": settings.asked(), "encoder": encoder.fingerprint, "data": data},
            lambda _: moved_at_both_rates(encoder, images, settings, work, options.device),
        )
    return {
        "checkpoint": checkpoint.name,
        "pretraining": made,
        "untrained": before,
        "moved": moved,
        **compared,
    }


def _to_train_on(options: argparse.Namespace) -> Source:
    place = options.out / "images"
    return open_source(fashion_mnist.class_folders(options.data, place, options.images)["train"])


def _pretrain_only(plan: Plan, options: argparse.Namespace) -> Path:
    if plan.pretraining is None:
        raise SettingsError("--pretrain-only makes checkpoints, and --checkpoints gives them")
    images, steps = _to_train_on(options), Steps(options.out, say)
    for system in plan.systems:
        checkpoint, _ = _pretrained(plan, system, steps, images, options)
        say(f"{system}: {checkpoint}")
    return options.out


def _pretrained(
    plan: Plan, system: str, steps: Steps, images: Source, options: argparse.Namespace
) -> tuple[Path, dict[str, Any]]:
    """A system's checkpoint in its official layout, and how it was made."""
    work = options.out / system
    work.mkdir(exist_ok=True)
    checkpoint, wanted = work / f"{system}.pth", plan.pretraining_of(system)
    made = steps.run(
        f"{system}-pretraining",
        {"settings": wanted.asked(), "images": _count(images)},
        lambda _: pretrain(
            small_encoder(system),
            images,
            wanted,
            work / "pretraining",
            checkpoint,
            options.device,
        ),
    )
    return checkpoint, made


def _count(images: Source) -> str:
    return f"{images.num_samples:,} images" if images.num_samples else "images of unknown number"


def say(line: str) -> None:
    print(f"table2: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
