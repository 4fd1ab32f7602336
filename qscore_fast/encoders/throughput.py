"""``encoder_throughput``: images a second of an encoder's variants, and what each does to the features."""

from __future__ import annotations

import itertools
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from qscore_fast.allocator import freed_memory_kept
from qscore_fast.encoders.encoder import Encoder
from qscore_fast.errors import EncoderError, SettingsError

WARM_UP_CALLS = 2
MIN_CALLS = 3
VARIANT_OPTIONS = {"precision", "channels_last", "compile", "fold_batch_norm"}


@dataclass(frozen=True)
class Throughput:
    """One variant of an encoder, measured.

    Attributes:
        name: the variant's ``precision``, such as "bfloat16-autocast+folded".
        images_per_second: of one call with a full batch, median; None where it failed.
        cosine: smallest cosine similarity, over the images, of its features and float32's; None where
            they are not finite.
        max_difference: largest absolute difference of a feature from float32's.
        error: why it was not measured, or what is wrong with its features.
        options: what ``Encoder.optimised`` was given.
    """

    name: str
    images_per_second: float | None = None
    cosine: float | None = None
    max_difference: float | None = None
    error: str | None = None
    options: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return asdict(self)


@dataclass
class _Candidate:
    """A variant while it is measured."""

    row: Throughput
    encoder: Encoder
    seconds: list[float]


def encoder_throughput(
    encoder: Encoder,
    batch_size: int = 64,
    seconds: float = 2.0,
    device: torch.device | str | None = None,
    variants: Sequence[Mapping[str, Any]] | None = None,
) -> list[Throughput]:
    """Measure an encoder's variants on this machine, one call of each in turn.

    The images are smooth noise of the size that the preprocessing gives, already on the device: neither
    decoding nor the copy is part of the time. All variants are in memory at once, those that change
    weights with weights of their own.

    Args:
        encoder: as it was loaded.
        batch_size: images a call.
        seconds: for each variant, beside its warm-up; at least three calls are timed.
        device: where to measure; by default where the encoder is.
        variants: arguments of ``Encoder.optimised``, one mapping a variant; by default what makes sense
            on the device. Float32, run eagerly, always comes first: the others are compared with it.

    Returns:
        One row a variant; one that fails is a row with its reason. Variants that come out the same,
        for want of batch norm or convolutions, are one row.

    Raises:
        SettingsError: batch_size, seconds or a variant makes no sense.
        EncoderError: the encoder itself cannot run, or was optimised already.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise SettingsError(f"batch_size must be a whole number, 1 or more; got {batch_size!r}")
    if not 0 < seconds < float("inf"):
        raise SettingsError(f"seconds must be above 0 and finite, got {seconds!r}")
    encoder = encoder if device is None else encoder.to(device)
    if variants is None:
        variants = default_variants(encoder.device.type)
    for variant in variants:
        if not variant.keys() <= VARIANT_OPTIONS:
            raise SettingsError(
                f"a variant may have {', '.join(sorted(VARIANT_OPTIONS))}; got {dict(variant)}"
            )
    images = _images(encoder, batch_size)
    float32 = encoder.optimised()
    expected = float32(images).float()
    candidates = [_Candidate(_compared({}, float32, expected, expected), float32, [])]
    failed = []
    for variant in variants:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*torch.compile failed")
                made = encoder.optimised(**variant)
            if variant.get("compile") and "compiled" not in made.precision.split("+"):
                raise EncoderError(made.notes[-1])
            if any(made.precision == known.encoder.precision for known in candidates):
                continue
            h = made(images)
            candidates.append(_Candidate(_compared(variant, made, h, expected), made, []))
        except Exception as error:
            failed.append(Throughput(_name(variant), error=_reason(error), options=dict(variant)))
    with freed_memory_kept():  # as in scoring
        return [*_measured(candidates, images, seconds), *failed]


def default_variants(device_type: str) -> list[dict[str, Any]]:
    """What is worth comparing on a kind of device: arguments of ``Encoder.optimised``."""
    layout = {"channels_last": True, "fold_batch_norm": True}
    variants: list[dict[str, Any]] = [
        {"channels_last": True},
        {"fold_batch_norm": True},
        layout,
        {"compile": True},
        {**layout, "compile": True},
    ]
    for dtype in ("bfloat16", "float16") if device_type != "cpu" else ("bfloat16",):
        variants += [
            {"precision": f"{dtype}-autocast"},
            {"precision": dtype},
            {"precision": dtype, **layout},
            {"precision": dtype, **layout, "compile": True},
        ]
    return variants


def _measured(candidates: list[_Candidate], images: Tensor, seconds: float) -> list[Throughput]:
    """Time the candidates in rounds, so that whatever slows the machine for a while slows them all."""
    rows = {id(candidate): candidate.row for candidate in candidates}
    running = list(candidates)
    for round_number in itertools.count():
        for candidate in list(running):
            try:
                duration = _call_seconds(candidate.encoder, images)
            except Exception as error:
                failed = replace(candidate.row, error=_reason(error))
                rows[id(candidate)] = failed
                running.remove(candidate)
                continue
            if round_number >= WARM_UP_CALLS:
                candidate.seconds.append(duration)
            if len(candidate.seconds) >= MIN_CALLS and sum(candidate.seconds) >= seconds:
                rate = len(images) / statistics.median(candidate.seconds)
                rows[id(candidate)] = replace(candidate.row, images_per_second=rate)
                running.remove(candidate)
        if not running:
            return list(rows.values())
    raise AssertionError("unreachable")


def _call_seconds(encoder: Encoder, images: Tensor) -> float:
    _synchronise(images.device)
    start = time.perf_counter()
    encoder(images)
    _synchronise(images.device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _compared(
    variant: Mapping[str, Any], encoder: Encoder, h: Tensor, expected: Tensor
) -> Throughput:
    row = Throughput(encoder.precision, options=dict(variant))
    difference = (h.double() - expected.double()).abs().max().item()
    if not torch.isfinite(h).all():
        return replace(row, error="its features are not all finite")
    cosine = F.cosine_similarity(h.double(), expected.double(), dim=1).min().item()
    return replace(row, cosine=cosine, max_difference=difference)


def _images(encoder: Encoder, batch_size: int) -> Tensor:
    """Smooth noise, the same each time: normalised (batch_size, C, height, width)."""
    preprocess = encoder.preprocess
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch_size, preprocess.channels, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, preprocess.output_size, mode="bilinear", align_corners=False)
    return preprocess.normalise(smooth.mul_(255).to(torch.uint8)).to(encoder.device)


def _name(variant: Mapping[str, Any]) -> str:
    """What the precision would have been."""
    parts = [str(variant.get("precision", "float32"))]
    parts += ["folded"] * bool(variant.get("fold_batch_norm"))
    parts += ["channels-last"] * bool(variant.get("channels_last"))
    parts += ["compiled"] * bool(variant.get("compile"))
    return "+".join(parts)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
