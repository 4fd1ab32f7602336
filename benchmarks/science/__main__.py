"""``python -m benchmarks.science``: the experiment, from images to docs/science.md."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from qscore_fast.encoders import load_encoder
from qscore_fast.errors import QScoreError
from qscore_fast.images import Source, open_source

from ..environment import ROOT, describe
from ..results import RESULTS, write
from . import fashion_mnist
from .chain import SHARES, run_chain
from .document import document
from .estimate import estimate, lines
from .imagenet import imagenet_sources
from .listing import listing
from .planted_result import planted_results
from .steps import Steps

FIGURES = {
    "science-activations.svg": Path("discovery") / "activations.svg",
    "science-compression.svg": Path("compression") / "compression.svg",
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.science", description=__doc__)
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        required=True,
        help="the experiment's folder; what it holds is not done again",
    )
    add("--data", type=Path, default=fashion_mnist.DEFAULT, help="Fashion-MNIST's four files")
    add("--imagenet", type=Path, help="ImageNet-1K instead, in any of its layouts")
    add("--classes", help="of ImageNet, these alone: imagenet100, or a file of wnids")
    add("--encoder", default="demo", help="a checkpoint, or what load_encoder takes")
    add("--eps", type=float, default=4.0)
    add("--resamples", type=int, default=10_000, help="of the bootstrap")
    add("--limit", type=int, help="of Fashion-MNIST, so many images of each split")
    add("--seeds", type=int, default=4, help="random subsets a share")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--results", type=Path, default=RESULTS, help="where the JSON file goes")
    add("--document", type=Path, help="write docs/science.md and its figures to this folder, too")
    options = parser.parse_args(argv)
    try:
        path = run(options)
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
    seconds = estimate(
        encoder,
        listed.num_train,
        listed.num_test,
        listed.num_classes,
        num_probes,
        options.device,
    )
    for line in lines(seconds):
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
        "chain": chain,
        "planted": planted["rows"],
    }
    path = write(found, options.results, "science")
    if options.document is not None:
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
        publish(found | {"file": str(shown)}, options.out, options.document)
    return path


def publish(found: dict[str, Any], work: Path, folder: Path) -> None:
    """Write science.md and its figures."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "science.md").write_text(document(found), encoding="utf-8")
    for name, source in FIGURES.items():
        shutil.copyfile(work / source, folder / "images" / name)
    say(f"written {folder / 'science.md'}")


def say(line: str) -> None:
    print(f"science: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
