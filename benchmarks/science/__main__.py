"""``python -m benchmarks.science``: the experiment, from images to docs/science.md."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import QScoreError, SettingsError
from qscore_fast.evaluation.compression import SHARES
from qscore_fast.images import Source, open_source

from ..environment import ROOT, describe
from ..results import RESULTS, write
from . import fashion_mnist, resnet18
from .chain import run_chain
from .document import document, stem_of
from .estimate import Estimate, estimates, lines
from .imagenet import imagenet_sources
from .listing import Listing, listing
from .planted_result import planted_results
from .resnet18 import Rounds
from .steps import Steps

FIGURES = {
    "activations.svg": Path("discovery") / "activations.svg",
    "compression.svg": Path("compression") / "compression.svg",
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.science", description=__doc__)
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        help="the experiment's folder; what it holds is not done again",
    )
    add("--data", type=Path, default=fashion_mnist.DEFAULT, help="Fashion-MNIST's four files")
    add("--imagenet", type=Path, help="ImageNet-1K instead, in any of its layouts")
    add("--classes", help="of ImageNet, these alone: imagenet100, or a file of wnids")
    add(
        "--encoder",
        help="a checkpoint, what load_encoder takes, or resnet18: a ResNet-18 that is trained first, with "
        "SimCLR on Fashion-MNIST until it is sparse; by default the bundled one, and on a GPU resnet18, too",
    )
    add(
        "--pretraining-epochs",
        type=int,
        default=Rounds.first_epochs,
        help="of resnet18's first round; each round is twice as long as the one before it",
    )
    add("--pretraining-rounds", type=int, default=Rounds.most, help="at most")
    add("--eps", type=_eps, help="a number, or auto: chosen without labels; 4, of resnet18 auto")
    add("--label", help="of this encoder, in the names of results, document and figures")
    add("--resamples", type=int, default=10_000, help="of the bootstrap")
    add("--limit", type=int, help="of Fashion-MNIST, so many images of each split")
    add("--seeds", type=int, default=4, help="random subsets a share")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--results", type=Path, default=RESULTS, help="where the JSON file goes")
    add("--document", type=Path, help="write docs/science.md and its figures to this folder, too")
    add(
        "--beside",
        type=Path,
        nargs="+",
        default=[],
        help="results of other encoders, for the document",
    )
    add(
        "--from",
        type=Path,
        dest="known",
        help="a file of results: write its document, do nothing else",
    )
    options = parser.parse_args(argv)
    if options.out is None and options.known is None:
        parser.error("give --out, the experiment's folder, or --from, a file of results")
    try:
        paths = run(options) if options.known is None else [again(options)]
    except QScoreError as error:
        say(f"error: {error}")
        return 2
    for path in paths:
        say(f"written {path}")
    return 0


@dataclass(frozen=True)
class Subject:
    """An encoder that the chain is run on.

    Attributes:
        encoder: as ``load_encoder`` takes it, or ``resnet18.NAME``.
        folder: of its chain. label: see ``stem_of``. eps: of its D.
    """

    encoder: str
    folder: Path
    label: str | None
    eps: float | Literal["auto"]

    @property
    def trained_here(self) -> bool:
        return self.encoder == resnet18.NAME


def _subjects(options: argparse.Namespace) -> list[Subject]:
    def trained(label: str | None) -> Subject:
        folder = options.out / resnet18.NAME
        return Subject(resnet18.NAME, folder, label or resnet18.NAME, options.eps or "auto")

    if options.encoder == resnet18.NAME:
        if options.imagenet is not None:
            raise SettingsError(
                "--encoder resnet18 is trained on Fashion-MNIST's small images: with --imagenet give "
                "--encoder CKPT, a checkpoint"
            )
        return [trained(options.label)]
    given = Subject(options.encoder or "demo", options.out, options.label, options.eps or 4.0)
    on_gpu = torch.device(options.device).type == "cuda"
    beside = options.encoder is None and options.imagenet is None and on_gpu
    return [given, trained(None)] if beside else [given]


def run(options: argparse.Namespace) -> list[Path]:
    """Run the experiment on every encoder; the paths of the results."""
    rounds = Rounds(options.pretraining_epochs, options.pretraining_rounds)
    subjects = _subjects(options)
    options.out.mkdir(parents=True, exist_ok=True)
    name, sources = _sources(options)
    listed = listing(sources["train"], sources["test"])
    say(listed.line())
    for subject in subjects:
        if len(subjects) > 1:
            say(f"{subject.encoder}:")
        for line in lines(_estimates(subject, sources["train"], listed, rounds, options)):
            say(line)
    planted = Steps(options.out, say).run("planted", {}, lambda _: {"rows": planted_results()})
    paths = []
    for subject in subjects:
        encoder, pretraining = _encoder(subject, sources["train"], rounds, options.device)
        chain = run_chain(
            sources,
            encoder,
            subject.folder,
            say,
            eps=subject.eps,
            num_resamples=options.resamples,
            num_seeds=options.seeds,
            device=options.device,
        )
        found = {
            "environment": describe(torch.device(options.device)),
            "name": name,
            "label": subject.label,
            "pretraining": pretraining,
            "chain": chain,
            "planted": planted["rows"],
        }
        paths.append(write(found, options.results, stem_of(found)))
    if options.document is not None:
        for subject, path in zip(subjects, paths, strict=True):
            others = [other for other in paths if other != path]
            publish(path, others + options.beside, options.document)
            for figure, source in FIGURES.items():
                target = options.document / "images" / f"{stem_of(_results(path))}-{figure}"
                shutil.copyfile(subject.folder / source, target)
    return paths


def _sources(options: argparse.Namespace) -> tuple[str, dict[str, Source]]:
    """The data set's name and its two splits."""
    if options.imagenet is None:
        folders = fashion_mnist.class_folders(options.data, options.out / "images", options.limit)
        return "Fashion-MNIST", {split: open_source(folder) for split, folder in folders.items()}
    classes = "" if options.classes is None else f", classes {options.classes}"
    return f"ImageNet-1K{classes}", imagenet_sources(options.imagenet, options.classes)


def _estimates(
    subject: Subject, train: Source, listed: Listing, rounds: Rounds, options: argparse.Namespace
) -> list[Estimate]:
    """Of its training, if there is one, and of its chain."""
    found = []
    if subject.trained_here:
        encoder = resnet18.untrained()
        place = subject.folder / "pretraining"
        found.append(resnet18.training_time(train, rounds, place, options.device))
    else:
        encoder = load_encoder(subject.encoder, device=options.device)
    num_probes = 1 + len(SHARES) * (5 + options.seeds)
    return found + estimates(encoder, train, listed, num_probes, subject.folder, options.device)


def _encoder(
    subject: Subject, train: Source, rounds: Rounds, device: str
) -> tuple[Encoder, dict[str, Any] | None]:
    """The encoder, and how it was trained where that was here."""
    if not subject.trained_here:
        return load_encoder(subject.encoder, device=device), None
    place = subject.folder / "pretraining"
    checkpoint, pretraining = resnet18.pretrained(train, rounds, place, say, device)
    return load_encoder(checkpoint, resnet18.SYSTEM, device=device), pretraining


def again(options: argparse.Namespace) -> Path:
    """The document of a run that was made before; its figures are there."""
    if options.document is None:
        raise SettingsError("--from FILE writes a document: give --document with its folder")
    publish(options.known, options.beside, options.document)
    return Path(options.document)


def publish(path: Path, others: list[Path], folder: Path) -> None:
    """Write science.md, or science-LABEL.md, from files of results."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    found = _results(path)
    try:
        text = document(found, [_results(other) for other in others])
    except KeyError as error:
        raise SettingsError(
            f"{path}, or one of those beside it, was made by another version of the experiment (it has no "
            f"{error}): run it again"
        ) from error
    target = folder / f"{stem_of(found)}.md"
    target.write_text(text, encoding="utf-8")
    say(f"written {target}")


def _results(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["chain"]["failure"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{path} is no file of results of benchmarks.science: {error}"
        ) from error
    path = path.resolve()
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    return found | {"file": str(shown), "document": f"{stem_of(found)}.md"}


def _eps(text: str) -> float | Literal["auto"]:
    return "auto" if text == "auto" else float(text)


def say(line: str) -> None:
    print(f"science: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
