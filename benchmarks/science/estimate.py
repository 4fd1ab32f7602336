"""How long the chain will take: measured rates, times what there is left to do."""

from __future__ import annotations

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from qscore_fast.encoders import Encoder, encoder_throughput
from qscore_fast.errors import ImageError
from qscore_fast.images import Source, choose_decoder
from qscore_fast.images.sources.source import Sample
from qscore_fast.scoring.prefetch import default_workers

from .chain import VIEWS
from .listing import Listing

# Of one probe, counting its search for C; of the probes of a curve, trained together.
PROBE_PASSES, CURVE_PASSES = 400, 100
RESAMPLING_SECONDS = 0.26e-3  # a test image and score, 10,000 resamples, as measured on two cores
SCORES = 24
DECODED = 256


@dataclass(frozen=True)
class Estimate:
    """One part of the chain.

    Attributes:
        name: of the step.
        seconds: an order of magnitude of what is left; 0 where it is done.
        note: what the seconds are made of, or what is done.
    """

    name: str
    seconds: float
    note: str = ""

    def line(self) -> str:
        """For a terminal."""
        note = f" ({self.note})" if self.note else ""
        return f"  {self.name}: {duration(self.seconds)}{note}"


@dataclass(frozen=True)
class Rates:
    """Of this machine at this moment.

    Attributes:
        decoded: images a second, by all threads. encoded: images a second. shared: whether both are done by
            the same cores. flops: of matrix products.
    """

    decoded: float
    encoded: float
    shared: bool
    flops: float

    @classmethod
    def measured(cls, encoder: Encoder, source: Source, device: str = "cpu") -> Rates:
        """Decoding of the source's first images, the encoder on synthetic ones, and a small product."""
        rows = encoder_throughput(encoder, batch_size=32, seconds=1.0, device=device, variants=[{}])
        encoded = max(row.images_per_second for row in rows if row.images_per_second)
        shared = torch.device(device).type == "cpu"
        flops = product_flops(encoder.num_features, device)
        return cls(decoded_per_second(source, encoder), encoded, shared, flops)

    def scoring(self, num_images: int) -> float:
        """Seconds: the sum of decoding and encoding on the same cores, otherwise the slower of them."""
        each = num_images / self.decoded, num_images / self.encoded
        return sum(each) if self.shared else max(each)

    def probe(self, num_train: int, num_features: int, num_classes: int, passes: int) -> float:
        """Seconds of logistic regression."""
        return passes * 4 * num_train * num_features * num_classes / self.flops


def estimates(
    encoder: Encoder,
    source: Source,
    listed: Listing,
    num_probes: int,
    folder: Path,
    device: str = "cpu",
) -> list[Estimate]:
    """What is left of each part. Steps that ended before count as done, though other settings redo them.

    Args:
        source: of the training images.
        folder: of the experiment, with what was done before.
    """
    rates = Rates.measured(encoder, source, device)
    r, train, test = encoder.num_features, listed.num_train, listed.num_test
    total = train + (1 + len(VIEWS)) * test
    left = max(0, total - images_done(folder / "runs"))
    score = Estimate(
        "score",
        rates.scoring(left),
        f"{left:,} of {total:,} images are left; decoding {rates.decoded:,.0f} images/s, encoding "
        f"{rates.encoded:,.0f}",
    )
    steps = {
        "probe": rates.probe(train, r, listed.num_classes, PROBE_PASSES),
        "failure": 2 * train * test * r / rates.flops + SCORES * test * RESAMPLING_SECONDS,
        "compression": rates.probe(train, r, listed.num_classes, CURVE_PASSES * num_probes),
        "measures": 4 * 1.25 * train * r * r / rates.flops,
    }
    return [
        score,
        *(
            Estimate(name, 0, "done before")
            if (folder / f"{name}.json").exists()
            else Estimate(name, seconds)
            for name, seconds in steps.items()
        ),
    ]


def images_done(runs: Path) -> int:
    """How many images the whole parts of all runs below a folder hold."""
    found = 0
    for part in runs.glob("*/parts/part-*.parquet"):
        try:
            found += json.loads(part.with_suffix(".json").read_text())["num_images"]
        except (OSError, ValueError, KeyError):
            continue  # such a part is done again
    return found


def decoded_per_second(source: Source, encoder: Encoder, count: int = DECODED) -> float:
    """Images decoded, resized and cropped in a second by as many threads as scoring takes; infinite where
    the source's first images cannot be read.
    """
    decoder, preprocess = choose_decoder("auto"), encoder.preprocess

    def prepare(sample: Sample) -> bool:
        try:
            preprocess.pixels(decoder.decode(sample, preprocess.mode))
        except ImageError:
            return False
        return True

    samples = itertools.chain.from_iterable(map(source.read, source.units(count)))
    began = time.perf_counter()
    with ThreadPoolExecutor(default_workers()) as pool:
        ready = sum(pool.map(prepare, itertools.islice(samples, count)))
    return ready / (time.perf_counter() - began) if ready else float("inf")


def product_flops(num_features: int, device: str) -> float:
    """Operations a second of a matrix product (8192, r) by (r, 512)."""
    block = torch.randn(8192, num_features, device=device)
    weight = torch.randn(num_features, 512, device=device)
    float((block @ weight).sum())
    began = time.perf_counter()
    for _ in range(4):
        product = block @ weight
    float(product.sum())
    return 4 * 2 * 8192 * num_features * 512 / (time.perf_counter() - began)


def lines(found: list[Estimate]) -> list[str]:
    """For a terminal."""
    together = sum(one.seconds for one in found)
    return [
        "estimated time:",
        *(one.line() for one in found),
        f"  together: {duration(together)}",
    ]


def duration(seconds: float) -> str:
    """In words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
