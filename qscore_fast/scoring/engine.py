"""What every engine's run has in common: claims, the writer's thread, progress."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from qscore_fast.errors import ErrorRateError, QScoreError
from qscore_fast.images import Unit
from qscore_fast.scoring.claims import Claims
from qscore_fast.scoring.encode_unit import OnImages
from qscore_fast.scoring.error_rate import FEWEST_TO_JUDGE, ErrorTally, write_known_errors
from qscore_fast.scoring.part import PartRows
from qscore_fast.scoring.session import Session, stage_rates
from qscore_fast.scoring.store import Store
from qscore_fast.scoring.unit_rows import Failure


@dataclass(frozen=True)
class Progress:
    """How far a run is, in images; ``found`` of the ``done`` were in parts that were there already.

    ``total`` is None where only reading the source tells how many there are.
    """

    done: int
    total: int | None
    found: int
    failed: int


@dataclass(frozen=True)
class EncodedUnit:
    """A unit on its way into a part.

    Attributes:
        seconds: by stage, see ``Session``.
        workers: the decoding threads that it had.
        node: the address of the machine that encoded it, where that can be another one.
    """

    index: int
    rows: PartRows
    seconds: dict[str, float]
    workers: int
    node: str | None = None


@dataclass(frozen=True)
class Crew:
    """Who encodes: on which device, with which kernels, decoding threads and encoders in all."""

    device: str
    backend: str
    workers: int
    encoders: int = 1
    nodes: int = 1


class Engine(Protocol):
    """What turns units into rows, in this process or elsewhere."""

    @property
    def crew(self) -> Crew:
        """Who encodes; of a cluster, the most that there were at once."""
        ...

    def encoded(self, claims: Claims, on_images: OnImages) -> Iterator[EncodedUnit]:
        """Claim what can be claimed now, and give it back encoded, in any order.

        ``on_images`` hears of progress: of each image before its unit is given back.
        """
        ...


def encode_missing(
    engine: Engine,
    store: Store,
    units: Sequence[Unit],
    mine: Sequence[int],
    *,
    max_error_rate: float | None,
    progress: Callable[[Progress], None] | None,
) -> Session:
    """Make the parts that are not there, with whoever else works on the run.

    Args:
        mine: the units that this process may do, ascending.

    Raises:
        ErrorRateError: too many of the images are bad; the parts made so far stay, and errors.parquet lists
            what is known.
    """
    claims = Claims(store, mine)
    missing = set(claims.missing)
    state = _initial(store, mine, claims)
    tally, table = ErrorTally(), store.path / "errors.parquet"
    unfinished: dict[str, Failure] = {}
    seconds: dict[str, float] = defaultdict(float)

    def report(done: int, failures: list[Failure]) -> None:
        nonlocal state
        failed = state.failed + len(failures)
        state = Progress(state.done + done, state.total, state.found, failed)
        tally.add(failures)
        unfinished.update((failure["sample_id"], failure) for failure in failures)
        if progress is not None:
            progress(state)
        num_images = state.done - state.found
        if num_images >= FEWEST_TO_JUDGE:
            tally.check(num_images, max_error_rate, table)

    report(0, [])
    start = time.perf_counter()
    with (
        _known_errors_written(store, unfinished, table),
        _PartWriter(store, claims, seconds) as writer,
    ):
        while claims.missing:
            for encoded in engine.encoded(claims, report):
                before = time.perf_counter()
                writer.write(encoded)
                seconds["wait_for_writing"] += time.perf_counter() - before
                for failure in encoded.rows.errors:
                    unfinished.pop(failure["sample_id"], None)
            before = time.perf_counter()
            writer.finish()
            seconds["wait_for_writing"] += time.perf_counter() - before
            if claims.missing:
                claims.wait()
    return Session(
        **asdict(engine.crew),
        parts_found=claims.found,
        parts_done=len(claims.claimed),
        parts_left=0 if len(mine) == len(units) else len(store.missing_units()),
        images_done=state.done - state.found,
        images_by_others=store.num_images_in(missing - claims.claimed),
        seconds=time.perf_counter() - start,
        seconds_by_stage=dict(seconds),
    )


@contextmanager
def _known_errors_written(
    store: Store, unfinished: Mapping[str, Failure], table: Path
) -> Iterator[None]:
    """Where a run ends because of its errors, list them."""
    try:
        yield
    except ErrorRateError:
        with suppress(QScoreError):  # the run's own error says more than a full disk
            write_known_errors(store, unfinished.values(), table)
        raise


class _PartWriter:
    """Writes parts in a thread of its own, at most one behind the encoder."""

    def __init__(self, store: Store, claims: Claims, seconds: dict[str, float]) -> None:
        self._store, self._claims, self._seconds = store, claims, seconds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="qscore-write")
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> _PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)

    def write(self, encoded: EncodedUnit) -> None:
        """Hand a part over, once the one before is written; raises what that one raised."""
        self.finish()
        self._pending.append(self._pool.submit(self._write, encoded))

    def finish(self) -> None:
        """Wait for the part that is being written."""
        while self._pending:
            self._pending.popleft().result()

    def _write(self, encoded: EncodedUnit) -> None:
        start = time.perf_counter()
        rates = stage_rates(len(encoded.rows.status), encoded.seconds, encoded.workers)
        about: dict[str, Any] = {
            "workers": encoded.workers,
            "seconds": {name: round(taken, 4) for name, taken in encoded.seconds.items()},
            "images_per_second": {name: round(rate, 1) for name, rate in rates.items()},
            "bottleneck": min(rates, key=lambda stage: rates[stage], default=None),
        }
        if encoded.node is not None:
            about["node"] = encoded.node
        self._store.write_part(encoded.index, encoded.rows, about)
        self._claims.done(encoded.index)
        for stage, taken in encoded.seconds.items():
            self._seconds[stage] += taken
        self._seconds["write"] += time.perf_counter() - start


def _initial(store: Store, mine: Sequence[int], claims: Claims) -> Progress:
    """What is there before anything is done."""
    missing = set(claims.missing)
    found = store.num_images_in(set(mine) - missing)
    known = [store.record.unit_rows(index) for index in mine]
    total = sum(rows for rows in known if rows is not None)
    return Progress(found, None if None in known else total, found, 0)
