"""``python -m benchmarks.science``: the experiment, from images to docs/science.md."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

import torch

from qscore_fast.encoders import load_encoder
from qscore_fast.errors import QScoreError, SettingsError
from qscore_fast.images import Source, open_source

from ..environment import ROOT, describe
from ..results import RESULTS, write
from . import fashion_mnist
from .chain import SHARES, run_chain
from .document import document, stem_of
from .estimate import estimates, lines
from .imagenet import imagenet_sources
from .listing import listing
from .planted_result import planted_results
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
    add("--encoder", default="demo", help="a checkpoint, or what load_encoder takes")
    add("--eps", type=_eps, default=4.0, help="a number, or auto: chosen without labels")
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
        path = run(options) if options.known is None else again(options)
    except QScoreError as error:
        say(f"error: {error}")
        return 2
    say(f"written {path}")
    return 0


def run(options: argparse.Namespace) -> Path:
    """Run the experiment; the path of its results."""
    encoder = load_encoder(options.encoder, device=options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    sources: dict[str, Source]
    if options.imagenet is not None:
        sources = imagenet_sources(options.imagenet, options.classes)
        name = (
            "ImageNet-1K" if options.classes is None else f"ImageNet-1K, classes {options.classes}"
        )
    else:
        folders = fashion_mnist.class_folders(options.data, options.out / "images", options.limit)
        sources = {split: open_source(folder) for split, folder in folders.items()}
        name = "Fashion-MNIST"
    listed = listing(sources["train"], sources["test"])
    say(listed.line())
    num_probes = 1 + len(SHARES) * (5 + options.seeds)
    left = estimates(encoder, sources["train"], listed, num_probes, options.out, options.device)
    for line in lines(left):
        say(line)
    chain = run_chain(
        sources,
        encoder,
        options.out,
        say,
        eps=options.eps,
        num_resamples=options.resamples,
        num_seeds=options.seeds,
        device=options.device,
    )
    planted = Steps(options.out, say).run("planted", {}, lambda _: {"rows": planted_results()})
    found = {
        "environment": describe(torch.device(options.device)),
        "name": name,
        "label": options.label,
        "chain": chain,
        "planted": planted["rows"],
    }
    path = write(found, options.results, stem_of(found))
    if options.document is not None:
        publish(path, options.beside, options.document)
        for name, source in FIGURES.items():
            target = options.document / "images" / f"{stem_of(found)}-{name}"
            shutil.copyfile(options.out / source, target)
    return path


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
