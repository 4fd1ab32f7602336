"""The engine in this process: decoding threads ahead of the encoder and its kernels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from qscore_fast.backends import backend_on
from qscore_fast.images import Decoder, Unit
from qscore_fast.scoring.claims import Claims
from qscore_fast.scoring.encode_unit import OnImages, UnitEncoder
from qscore_fast.scoring.engine import Crew, EncodedUnit
from qscore_fast.scoring.prefetch import decoded_ahead


class LocalEngine:
    """Encodes units one after the other; the images of the next are decoded meanwhile.

    Args:
        unit_encoder: with the encoder on the device to use.
        units: all of the source's.
        workers: decoding threads.
    """

    def __init__(
        self, unit_encoder: UnitEncoder, units: Sequence[Unit], decoder: Decoder, workers: int
    ) -> None:
        self._unit_encoder = unit_encoder
        self._units = units
        self._decoder = decoder
        self._workers = workers

    @property
    def crew(self) -> Crew:
        """This process."""
        device = self._unit_encoder.encoder.device
        return Crew(str(device), backend_on(device.type), self._workers)

    def encoded(self, claims: Claims, on_images: OnImages) -> Iterator[EncodedUnit]:
        """See ``Engine``; in the order of the units, one batch after the other reported."""
        claimed: deque[int] = deque()

        def claimed_units() -> Iterator[Unit]:
            for index in claims.sweep():
                claimed.append(index)
                yield self._units[index]

        images = decoded_ahead(
            self._unit_encoder.source,
            claimed_units(),
            self._unit_encoder.encoder.preprocess,
            decoder=self._decoder,
            workers=self._workers,
            ahead=images_ahead(self._unit_encoder.batch_size, self._workers),
        )
        try:
            encoded = self._unit_encoder.encode(images, lambda _, *news: on_images(*news))
            # Every unit ends with None, also an empty one: what was claimed first comes first.
            for rows, seconds in encoded:
                yield EncodedUnit(claimed.popleft(), rows, seconds, self._workers)
        finally:
            images.close()


def images_ahead(batch_size: int, workers: int) -> int:
    """How many images are decoded or waiting at a time: two batches, or two a thread."""
    return 2 * max(batch_size, workers)
