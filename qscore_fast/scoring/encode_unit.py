"""One work unit through the encoder and the kernels: images in, rows of a part out."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from qscore_fast.encoders import Encoder
from qscore_fast.errors import EncoderError, ImageError, SettingsError
from qscore_fast.functional import sparse_activations
from qscore_fast.images import Decoder, NvJpegDecoder, Source
from qscore_fast.images.nvjpeg import INTERPOLATIONS, EncodedJpeg, decode_jpegs
from qscore_fast.scoring.made_with import made_with
from qscore_fast.scoring.part import NON_FINITE, OK, UNDECODABLE, PartRows
from qscore_fast.scoring.prefetch import Decoded


def check_decoder(
    decoder: Decoder, encoder: Encoder, device: torch.device | str | None = None
) -> None:
    """See that a decoder of the GPU has one, and does what the encoder's images need.

    Args:
        device: where the encoder will be; by default where it is.

    Raises:
        SettingsError: it does not.
    """
    if not isinstance(decoder, NvJpegDecoder):
        return
    kind = torch.device(device or encoder.device).type
    if kind != "cuda":
        raise SettingsError(
            f"decoder nvjpeg decodes on the encoder's GPU, and {encoder.name} is on {kind}: take a CUDA "
            "device, or decoder pillow"
        )
    if encoder.preprocess.interpolation not in INTERPOLATIONS:
        raise SettingsError(
            f"decoder nvjpeg resizes {' or '.join(INTERPOLATIONS)}, and {encoder.name} takes "
            f"{encoder.preprocess.interpolation}: take decoder pillow"
        )


class UnitEncoder:
    """Turns units into rows, batch by batch. No batch crosses a unit, so that what a part holds does
    not depend on which other parts were there already.

    Args:
        source: where the images are listed.
        encoder: on the device to use.
        batch_size: images a call of the encoder.
        activation_eps: entries above mu + activation_eps * sigma are kept.
        two_sided: whether those below mu - activation_eps * sigma are kept as well.
        keep_embeddings: whether the rows carry the float16 representations.
    """

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        batch_size: int,
        activation_eps: float,
        two_sided: bool,
        keep_embeddings: bool,
    ) -> None:
        self.source = source
        self.encoder = encoder
        self.batch_size = batch_size
        self.activation_eps = activation_eps
        self.two_sided = two_sided
        self.keep_embeddings = keep_embeddings

    def encode(
        self, images: Iterator[Decoded | None], on_images: Callable[[int, int], None]
    ) -> tuple[PartRows, dict[str, float]]:
        """Take images up to the end of their unit; rows and seconds by stage.

        ``on_images(done, failed)`` hears of each batch.
        """
        rows = _Rows(self.encoder.num_features, self.keep_embeddings)
        seconds: dict[str, float] = defaultdict(float)
        batch: list[tuple[int, Tensor | EncodedJpeg]] = []
        unreported = failed = 0
        while True:
            start = time.perf_counter()
            decoded = next(images)
            seconds["wait_for_decoding"] += time.perf_counter() - start
            if decoded is not None:
                seconds["decode"] += decoded.seconds
                unreported += 1
                row = rows.start(decoded.sample_id, decoded.label)
                if isinstance(decoded.image, ImageError):
                    rows.fail(row, UNDECODABLE, decoded.image.stage, str(decoded.image))
                    failed += 1
                else:
                    batch.append((row, decoded.image))
            if len(batch) == self.batch_size or (decoded is None and batch):
                failed += self._encode_batch(batch, rows, seconds)
                batch = []
                on_images(unreported, failed)
                unreported = failed = 0
            if decoded is None:
                break
        if unreported:
            on_images(unreported, failed)
        made = made_with(self.encoder, self.batch_size)
        return replace(rows.finish(), made_with=made), dict(seconds)

    def _encode_batch(
        self,
        batch: list[tuple[int, Tensor | EncodedJpeg]],
        rows: _Rows,
        seconds: dict[str, float],
    ) -> int:
        """Encode, keep what is finite, and say how many images failed."""
        start = time.perf_counter()
        try:
            encoded_rows, pixels = self._pixels(batch, rows)
            decoded = time.perf_counter()
            if not encoded_rows:
                return len(batch)
            h = self.encoder(self.encoder.preprocess.normalise(pixels))
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise EncoderError(
                f"out of memory with {len(batch)} images a batch on {self.encoder.device}: "
                "take a smaller batch_size (--batch-size); the finished parts stay"
            ) from error
        encoded = time.perf_counter()
        sparse = sparse_activations(h, self.activation_eps, two_sided=self.two_sided)
        offsets, feature, value, *stats = (column.cpu() for column in sparse)
        columns = torch.stack(stats, dim=1).float()
        # The standard deviation of a single feature is undefined; that makes the image no failure.
        finite = (columns[:, 0] + columns[:, 2] + columns[:, 3]).isfinite()
        rows.add(
            encoded_rows,
            finite.numpy(),
            columns.numpy(),
            offsets.diff().numpy(),
            feature.numpy(),
            value.float().numpy(),
            h.to(torch.float16).cpu().numpy() if self.keep_embeddings else None,
        )
        seconds["transfer"] += decoded - start
        seconds["encode"] += encoded - decoded
        seconds["activations"] += time.perf_counter() - encoded
        return len(batch) - int(finite.sum())

    def _pixels(
        self, batch: list[tuple[int, Tensor | EncodedJpeg]], rows: _Rows
    ) -> tuple[list[int], Tensor]:
        """Rows and uint8 (B, C, height, width) on the device, without the JPEGs that turn out damaged."""
        device = self.encoder.device
        good: list[tuple[int, Tensor]] = []
        jpegs: list[tuple[int, EncodedJpeg]] = []
        for row, image in batch:
            if isinstance(image, EncodedJpeg):
                jpegs.append((row, image))
            else:
                good.append((row, image))
        if not jpegs:
            pixels = torch.stack([image for _, image in good])
            if device.type == "cuda":
                pixels = pixels.pin_memory()
            return [row for row, _ in good], pixels.to(device, non_blocking=True)
        results = decode_jpegs([jpeg for _, jpeg in jpegs], self.encoder.preprocess, device)
        good = [(row, image.to(device, non_blocking=True)) for row, image in good]
        for (row, _), result in zip(jpegs, results, strict=True):
            if isinstance(result, ImageError):
                rows.fail(row, UNDECODABLE, result.stage, str(result))
            else:
                good.append((row, result))
        good.sort(key=lambda pair: pair[0])
        empty = torch.empty(0, dtype=torch.uint8, device=device)
        stacked = torch.stack([image for _, image in good]) if good else empty
        return [row for row, _ in good], stacked


class _Rows:
    """The rows of one unit while they are filled."""

    def __init__(self, num_features: int, keep_embeddings: bool) -> None:
        self._ids: list[str] = []
        self._labels: list[str | None] = []
        self._status: list[str] = []
        self._stats: list[tuple[list[int], np.ndarray]] = []
        self._lengths: list[tuple[list[int], np.ndarray]] = []
        index = np.uint16 if num_features <= 2**16 else np.uint32
        self._feature = [np.empty(0, index)]
        self._value = [np.empty(0, np.float32)]
        self._embeddings = [np.empty((0, num_features), np.float16)] if keep_embeddings else []
        self._errors: list[tuple[int, str, str]] = []

    def start(self, sample_id: str, label: str | None) -> int:
        """The next row, for this sample."""
        self._ids.append(sample_id)
        self._labels.append(label)
        self._status.append(OK)
        return len(self._ids) - 1

    def fail(self, row: int, status: str, stage: str, reason: str) -> None:
        self._status[row] = status
        self._errors.append((row, stage, reason))

    def add(
        self,
        rows: list[int],
        finite: np.ndarray,
        stats: np.ndarray,
        lengths: np.ndarray,
        feature: np.ndarray,
        value: np.ndarray,
        embeddings: np.ndarray | None,
    ) -> None:
        for row, good in zip(rows, finite, strict=True):
            if not good:
                self.fail(row, NON_FINITE, "encode", "the encoder's features are not all finite")
        kept = np.repeat(finite, lengths)
        self._stats.append((rows, stats))
        self._lengths.append((rows, np.where(finite, lengths, 0)))
        self._feature.append(feature[kept].astype(self._feature[0].dtype))
        self._value.append(value[kept])
        if embeddings is not None:
            self._embeddings.append(embeddings[finite])

    def finish(self) -> PartRows:
        return PartRows(
            sample_ids=self._ids,
            labels=self._labels,
            status=self._status,
            stats=_filled(self._stats, np.zeros((len(self._ids), 4), np.float32)),
            lengths=_filled(self._lengths, np.zeros(len(self._ids), np.int32)),
            feature=np.concatenate(self._feature),
            value=np.concatenate(self._value),
            embeddings=np.concatenate(self._embeddings) if self._embeddings else None,
            errors=[
                {"sample_id": self._ids[row], "stage": stage, "error": reason}
                for row, stage, reason in sorted(self._errors)
            ],
        )


def _filled(chunks: list[tuple[list[int], np.ndarray]], rows: np.ndarray) -> np.ndarray:
    for indices, values in chunks:
        rows[indices] = values
    return rows
