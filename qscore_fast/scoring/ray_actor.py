"""What runs on the nodes of a Ray cluster: an actor that encodes units."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import Any

from qscore_fast.allocator import freed_memory_kept
from qscore_fast.backends import backend_on
from qscore_fast.encoders import Encoder
from qscore_fast.errors import ImageError, SettingsError, SourceError
from qscore_fast.images import Decoder, Source, Unit
from qscore_fast.images.decoders import opened_sample
from qscore_fast.scoring.encode_unit import UnitEncoder, check_decoder
from qscore_fast.scoring.engine import EncodedUnit
from qscore_fast.scoring.local_engine import images_ahead
from qscore_fast.scoring.prefetch import decoded_ahead
from qscore_fast.scoring.record import library_versions
from qscore_fast.scoring.unit_rows import Failure
from qscore_fast.scoring.unit_stream import UnitStream

UNITS_AT_ONCE = 2
"""Units that an actor has at a time: while one is encoded, the next one's images are decoded."""
CALLS_AT_ONCE = UNITS_AT_ONCE + 1
"""Of an actor: while its units are encoded, it is asked for news."""


@dataclass(frozen=True)
class Job:
    """All that an actor needs to know; it is sent to every node once.

    Attributes:
        encoder: on the CPU.
        probe: a unit, and what :func:`first_sample` says of it where the job was made.
        versions: the libraries there.
    """

    source: Source
    encoder: Encoder
    decoder: Decoder
    batch_size: int
    activation_eps: float
    two_sided: bool
    keep_embeddings: bool
    probe: tuple[Unit, str | None]
    versions: dict[str, str]


class EncodingActor:
    """Encodes units on one GPU, or with the cores of one node.

    The constructor does nothing that can fail: an error there would reach nobody as itself.

    Args:
        job: a list with the reference of a :class:`Job`; Ray resolves references that are arguments
            themselves, and would fail in the constructor's stead.
        device: "cpu", or "cuda" for the GPU that Ray gave it.
        workers: decoding threads.
        threads: of PyTorch, on the CPU.
        node: the address of the node, for people.
    """

    def __init__(
        self, job: Sequence[Any], device: str, workers: int, threads: int, node: str
    ) -> None:
        self._job = job
        self._device = device
        self._workers = workers
        self._threads = threads
        self._node = node
        self._lock = Lock()
        self._prepared: tuple[UnitEncoder, Decoder] | None = None
        self._stream: UnitStream | None = None

    def prepare(self) -> tuple[str, str]:
        """Take the encoder to the device, and see that this node can do its share.

        Returns:
            The device's name and the kernels'.

        Raises:
            SettingsError: other versions of the libraries are installed here, or one that the
                encoder needs is not.
            SourceError: the images are not here.
        """
        with self._lock:
            if self._prepared is None:
                self._prepared = self._prepare()
                self._stream = UnitStream(self._prepared[0])
        device = self._prepared[0].encoder.device
        return str(device.type), backend_on(device.type)

    def encode(self, unit: Unit) -> EncodedUnit:
        """The unit's rows, as the local engine would make them."""
        self.prepare()
        assert self._prepared is not None and self._stream is not None
        unit_encoder, decoder = self._prepared
        images = decoded_ahead(
            unit_encoder.source,
            [unit],
            unit_encoder.encoder.preprocess,
            decoder=decoder,
            workers=self._workers,
            ahead=images_ahead(unit_encoder.batch_size, self._workers),
        )
        rows, seconds = self._stream.encode(unit.index, images)
        return EncodedUnit(unit.index, rows, seconds, self._workers, self._node)

    def news(self) -> dict[int, tuple[int, list[Failure]]]:
        """See ``UnitStream``."""
        return {} if self._stream is None else self._stream.news()

    def _prepare(self) -> tuple[UnitEncoder, Decoder]:
        import ray
        import torch

        freed_memory_kept().__enter__()  # for as long as the process lives
        if self._device == "cpu":
            torch.set_num_threads(self._threads)
        try:
            job: Job = ray.get(self._job[0])
        except ray.exceptions.RaySystemError as error:
            reason = str(error).strip().split("\n")[0].removeprefix("System error: ")
            raise SettingsError(
                f"node {self._node} cannot unpickle the encoder or the source ({reason}): what they are made "
                "of must be installed on every node"
            ) from error
        _check_versions(job.versions, self._node)
        unit, expected = job.probe
        if expected is not None and (found := first_sample(job.source, unit)) != expected:
            raise SourceError(
                f"node {self._node} {'cannot read' if found is None else 'reads other bytes for'} the "
                f"first image of {job.source.location}, unit {unit.name}: the source must be at the same "
                "path on every node (a shared file system), or be a URL that every node can open"
            )
        unit_encoder = UnitEncoder(
            job.source,
            job.encoder.to(self._device),
            job.batch_size,
            job.activation_eps,
            job.two_sided,
            job.keep_embeddings,
        )
        check_decoder(job.decoder, unit_encoder.encoder)
        return unit_encoder, job.decoder


def first_sample(source: Source, unit: Unit) -> str | None:
    """SHA-256 (hex) of the first image of a unit; None where it cannot be read or there is none."""
    with closing(source.read(unit)) as samples:  # type: ignore[type-var]
        sample = next(samples, None)
    if sample is None:
        return None
    try:
        with opened_sample(sample) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except (ImageError, OSError):
        return None


def _check_versions(expected: dict[str, str], node: str) -> None:
    """SettingsError where a library here is not the version that started the run; builds may differ."""
    found = library_versions()
    wrong = [
        f"{name} {found.get(name, 'is missing')} instead of {version}"
        for name, version in expected.items()
        if found.get(name, "").partition("+")[0] != version.partition("+")[0]
    ]
    if wrong:
        raise SettingsError(
            f"node {node} has {', '.join(wrong)}: install the same versions on every node, or the images "
            "would not all be scored alike"
        )
