"""The stages of a run in one process: decoding, encoder and kernels, and writing, side by side."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

from qscore_fast.backends import backend_info
from qscore_fast.errors import ErrorRateError
from qscore_fast.images import Decoder, Unit
from qscore_fast.scoring.claims import Claims
from qscore_fast.scoring.encode_unit import UnitEncoder
from qscore_fast.scoring.part import PartRows
from qscore_fast.scoring.prefetch import decoded_ahead
from qscore_fast.scoring.session import Session, stage_rates
from qscore_fast.scoring.store import Store

FEWEST_TO_JUDGE = 100
"""From so many images on, the share of bad ones can stop a run."""


@dataclass(frozen=True)
class Progress:
    """How far a run is, in images; ``found`` of the ``done`` were in parts that were there already.

    ``total`` is None where only reading the source tells how many there are.
    """

    done: int
    total: int | None
    found: int
    failed: int


def encode_missing(
    store: Store,
    unit_encoder: UnitEncoder,
    units: Sequence[Unit],
    mine: Sequence[int],
    *,
    decoder: Decoder,
    workers: int,
    max_error_rate: float | None,
    progress: Callable[[Progress], None] | None,
) -> Session:
    """Make the parts that are not there, with whoever else works on the run.

    Args:
        mine: the units that this process may do, ascending.

    Raises:
        ErrorRateError: too many of the images are bad; the parts made so far stay.
    """
    claims = Claims(store, mine)
    missing = set(claims.missing)
    state = _initial(store, mine, claims)
    errors: Counter[str] = Counter()
    seconds: dict[str, float] = defaultdict(float)

    def report(done: int, failed: int) -> None:
        nonlocal state
        state = Progress(state.done + done, state.total, state.found, state.failed + failed)
        if progress is not None:
            progress(state)

    report(0, 0)
    start = time.perf_counter()
    with _PartWriter(store, claims, workers, seconds) as writer:
        while claims.missing:
            for index, rows, timings in _encoded(
                unit_encoder, units, claims, decoder, workers, report
            ):
                errors.update(error["error"] for error in rows.errors)
                before = time.perf_counter()
                writer.write(index, rows, timings)
                seconds["wait_for_writing"] += time.perf_counter() - before
                if state.done - state.found >= FEWEST_TO_JUDGE:
                    check_error_rate(errors, state.done - state.found, max_error_rate)
            before = time.perf_counter()
            writer.finish()
            seconds["wait_for_writing"] += time.perf_counter() - before
            if claims.missing:
                claims.wait()
    device = unit_encoder.encoder.device
    return Session(
        device=str(device),
        backend=_backend_on(device.type),
        workers=workers,
        parts_found=claims.found,
        parts_done=len(claims.claimed),
        parts_left=0 if len(mine) == len(units) else len(store.missing_units()),
        images_done=state.done - state.found,
        images_by_others=store.num_images_in(missing - claims.claimed),
        seconds=time.perf_counter() - start,
        seconds_by_stage=dict(seconds),
    )


def check_error_rate(errors: Counter[str], num_images: int, limit: float | None) -> None:
    """ErrorRateError if more than ``limit`` of the images have an error."""
    failed = errors.total()
    if limit is None or failed <= limit * num_images:
        return
    reasons = "; ".join(f"{count} times: {reason}" for reason, count in errors.most_common(3))
    raise ErrorRateError(
        f"{failed:,} of {num_images:,} images are bad, {100 * failed / num_images:.1f} %, more than "
        f"max_error_rate = {limit:g} allows ({reasons}); finished parts stay: mend the source, or go on "
        "with a higher max_error_rate (--max-error-rate)"
    )


class _PartWriter:
    """Writes parts in a thread of its own, at most one behind the encoder."""

    def __init__(
        self, store: Store, claims: Claims, workers: int, seconds: dict[str, float]
    ) -> None:
        self._store, self._claims = store, claims
        self._workers, self._seconds = workers, seconds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="qscore-write")
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> _PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)

    def write(self, index: int, rows: PartRows, timings: dict[str, float]) -> None:
        """Hand a part over, once the one before is written; raises what that one raised."""
        self.finish()
        self._pending.append(self._pool.submit(self._write, index, rows, timings))

    def finish(self) -> None:
        """Wait for the part that is being written."""
        while self._pending:
            self._pending.popleft().result()

    def _write(self, index: int, rows: PartRows, timings: dict[str, float]) -> None:
        start = time.perf_counter()
        rates = stage_rates(len(rows.status), timings, self._workers)
        about: dict[str, Any] = {
            "workers": self._workers,
            "seconds": {name: round(taken, 4) for name, taken in timings.items()},
            "images_per_second": {name: round(rate, 1) for name, rate in rates.items()},
            "bottleneck": min(rates, key=lambda stage: rates[stage], default=None),
        }
        self._store.write_part(index, rows, about)
        self._claims.done(index)
        for stage, taken in timings.items():
            self._seconds[stage] += taken
        self._seconds["write"] += time.perf_counter() - start


def _initial(store: Store, mine: Sequence[int], claims: Claims) -> Progress:
    """What is there before anything is done."""
    missing = set(claims.missing)
    found = store.num_images_in(set(mine) - missing)
    known = [store.record.unit_rows(index) for index in mine]
    total = sum(rows for rows in known if rows is not None)
    return Progress(found, None if None in known else total, found, 0)


def _encoded(
    unit_encoder: UnitEncoder,
    units: Sequence[Unit],
    claims: Claims,
    decoder: Decoder,
    workers: int,
    report: Callable[[int, int], None],
) -> Iterator[tuple[int, PartRows, dict[str, float]]]:
    """The units that can be claimed now: index, rows and seconds by stage."""
    claimed: deque[int] = deque()

    def claimed_units() -> Iterator[Unit]:
        for index in claims.sweep():
            claimed.append(index)
            yield units[index]

    images = decoded_ahead(
        unit_encoder.source,
        claimed_units(),
        unit_encoder.encoder.preprocess,
        decoder=decoder,
        workers=workers,
        ahead=2 * max(unit_encoder.batch_size, workers),
    )
    try:
        # Every unit ends with None, also an empty one: what is first in line is what comes next.
        while (first := next(images, _END)) is not _END:
            yield (claimed[0], *unit_encoder.encode(chain([first], images), report))
            claimed.popleft()
    finally:
        images.close()


_END: Any = object()


def _backend_on(device_type: str) -> str:
    """The kernels that serve a device: those of the CPU and of CUDA have names, others none."""
    info = backend_info()
    return {"cpu": info.cpu, "cuda": info.cuda}.get(device_type, "reference")
