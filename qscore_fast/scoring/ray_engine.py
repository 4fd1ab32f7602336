"""The engine on a Ray cluster: this process claims and writes, actors on the nodes encode."""

from __future__ import annotations

import copy
import math
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from qscore_fast.backends import backend_on
from qscore_fast.encoders import Encoder
from qscore_fast.errors import ClusterError, QScoreError, SettingsError
from qscore_fast.images import Decoder, Unit
from qscore_fast.scoring.claims import Claims
from qscore_fast.scoring.encode_unit import OnImages, UnitEncoder
from qscore_fast.scoring.engine import Crew, EncodedUnit
from qscore_fast.scoring.ray_actor import (
    CALLS_AT_ONCE,
    UNITS_AT_ONCE,
    EncodingActor,
    Job,
    first_sample,
)
from qscore_fast.scoring.ray_cluster import Place, joined, places
from qscore_fast.scoring.record import library_versions
from qscore_fast.scoring.unit_reports import UnitReports

DEATHS_OF_A_UNIT = 3
"""A unit whose actor died so often, the last times with no other unit beside it, ends the run."""

STARTS_OF_AN_ACTOR = 10
"""A place whose actor is not there so often in a row is given up."""

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 30.0
"""Before an actor that is not there is asked again; doubled each time. Ray starts it anew meanwhile."""

PATIENCE_SECONDS = 300.0
"""So long a run waits for a cluster that has no actor ready."""

POLL_SECONDS = 1.0
RECRUIT_SECONDS = 2.0
NEWS_SECONDS = 1.0
"""So often an actor is asked how far its units are."""


@dataclass(eq=False)
class _Member:
    """An actor, and what it has to do.

    Attributes:
        ask_at: when to ask again one that was lost.
        news_at: when to ask for news; infinite while it is asked.
    """

    place: Place
    actor: Any
    ready: bool = False
    ask_at: float | None = None
    news_at: float = 0.0
    units: set[int] = field(default_factory=set)
    alone: bool = False


@dataclass(frozen=True)
class _Call:
    """What an actor was asked: to encode a unit, for news, or to prepare."""

    member: _Member
    unit: int | None = None
    news: bool = False


class RayEngine:
    """Encodes units on the nodes of a Ray cluster, wherever it has places for an encoder.

    Nodes may come and go: new ones are taken on, and the units of one that is gone go to the others. Ray
    starts an actor that died again, on the node that it was on. A context manager: on leaving, the actors
    are gone, and the connection where this made it.

    Args:
        unit_encoder: with the encoder on the device that it was loaded on; actors get a copy.
        units: all of the source's.
        workers: decoding threads of each actor; None for its share of the node's cores, at most 16.
        device: "cuda", "cpu", or None: GPUs if the cluster has any.
        address: see ``ray_cluster.joined``.
        max_actors: how many encode at once; None for as many as the cluster has places.
    """

    def __init__(
        self,
        unit_encoder: UnitEncoder,
        units: Sequence[Unit],
        decoder: Decoder,
        *,
        workers: int | None,
        device: str | None,
        address: str | None,
        max_actors: int | None,
    ) -> None:
        if device not in (None, "cpu", "cuda"):
            raise SettingsError(
                f'device must be "cpu" or "cuda" with engine="ray", which shares the GPUs out itself; got '
                f"{device!r}"
            )
        self._unit_encoder = unit_encoder
        self._units = units
        self._decoder = decoder
        self._workers = workers
        self._device = device
        self._address = address
        self._max_actors = max_actors
        self._stack = ExitStack()
        self._ray: Any = None
        self._job: Any = None
        self._members: dict[Place, _Member] = {}
        self._failed_starts: Counter[Place] = Counter()
        self._calls: dict[Any, _Call] = {}
        self._deaths: Counter[int] = Counter()
        self._last_failure = "it has no node with a free CPU or GPU"
        self._next_recruiting = 0.0
        device_type = device or "cpu"
        self._crew = Crew(device_type, backend_on(device_type), workers or 0, 0, 0)

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._ray is not None:
                for member in self._members.values():
                    self._ray.kill(member.actor)
        finally:
            self._members.clear()
            self._calls.clear()
            self._stack.close()

    @property
    def crew(self) -> Crew:
        """The most actors that were ready at once."""
        return self._crew

    def encoded(self, claims: Claims, on_images: OnImages) -> Iterator[EncodedUnit]:
        """See ``Engine``; in the order in which they are done.

        Raises:
            ClusterError: there is no cluster, nobody to encode, or a unit that kills whoever tries.
        """
        fresh = _Queue(claims.sweep())
        suspects: deque[int] = deque()
        reports = UnitReports(on_images)
        ready_at = time.monotonic()
        while fresh or suspects or self._calls_for_units():
            self._recruit()
            self._ask_again()
            self._hand_out(fresh, suspects, reports)
            self._ask_for_news()
            landed = self._landed()
            if landed is not None:
                call = self._calls.pop(landed)
                if call.news:
                    self._hear(landed, call.member, reports)
                elif call.unit is None:
                    self._prepared(landed, call.member)
                elif (done := self._encoded_unit(landed, call.member, call.unit)) is not None:
                    reports.finish(call.unit, len(done.rows.status), done.rows.errors)
                    yield done
                else:
                    (suspects if self._deaths[call.unit] else fresh.put_back).append(call.unit)
            if any(member.ready for member in self._members.values()):
                ready_at = time.monotonic()
            elif time.monotonic() - ready_at > PATIENCE_SECONDS:
                raise ClusterError(
                    f"the Ray cluster had nobody to encode for {PATIENCE_SECONDS:.0f} s: "
                    f"{self._last_failure}; finished parts stay: mend the cluster (ray status) and give "
                    "the same command again"
                )

    def _calls_for_units(self) -> bool:
        return any(call.unit is not None for call in self._calls.values())

    def _connect(self) -> None:
        self._ray = self._stack.enter_context(joined(self._address))
        encoder = _on_cpu(self._unit_encoder.encoder)
        source, unit = self._unit_encoder.source, self._units[0]
        job = Job(
            source,
            encoder,
            self._decoder,
            self._unit_encoder.batch_size,
            self._unit_encoder.activation_eps,
            self._unit_encoder.two_sided,
            self._unit_encoder.keep_embeddings,
            (unit, first_sample(source, unit)),
            library_versions(),
        )
        try:
            self._job = self._ray.put(job)
        except Exception as error:  # whatever a user's module raises while it is pickled
            reason = str(error.__cause__ or error).strip().split("\n")[0]
            raise SettingsError(
                f"{encoder.name} or the source cannot be sent to the nodes, as it does not pickle "
                f"({reason}): define it in a module that every node can import"
            ) from error

    def _recruit(self) -> None:
        """An actor for every place that has none."""
        if time.monotonic() < self._next_recruiting:
            return
        self._next_recruiting = time.monotonic() + RECRUIT_SECONDS
        if self._ray is None:
            self._connect()
        for place in places(self._ray.nodes(), self._device, self._workers):
            if len(self._members) >= (self._max_actors or len(self._members) + 1):
                return
            if place not in self._members and self._failed_starts[place] < STARTS_OF_AN_ACTOR:
                member = _Member(place, self._start(place))
                self._members[place] = member
                self._prepare(member)

    def _start(self, place: Place) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = self._ray.remote(EncodingActor).options(
            num_cpus=place.num_cpus,
            num_gpus=place.num_gpus,
            max_concurrency=CALLS_AT_ONCE,
            max_restarts=-1,
            max_task_retries=0,  # a unit may go to whoever is free
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node_id, soft=False),
        )
        device = "cuda" if place.num_gpus else "cpu"
        return actor.remote([self._job], device, place.workers, place.num_cpus, place.address)

    def _ask_again(self) -> None:
        now = time.monotonic()
        for member in self._members.values():
            if member.ask_at is not None and member.ask_at <= now:
                member.ask_at = None
                self._prepare(member)

    def _prepare(self, member: _Member) -> None:
        self._calls[member.actor.prepare.remote()] = _Call(member)

    def _hand_out(self, fresh: _Queue, suspects: deque[int], reports: UnitReports) -> None:
        """Two units to everybody; one that may have killed an actor to somebody who has no other."""
        for member in self._members.values():
            while member.ready and not member.alone and len(member.units) < UNITS_AT_ONCE:
                if suspects and not member.units:
                    index, member.alone = suspects.popleft(), True
                elif fresh:
                    index = fresh.popleft()
                else:
                    break
                member.units.add(index)
                reports.begin(index)
                call = member.actor.encode.remote(self._units[index])
                self._calls[call] = _Call(member, unit=index)

    def _ask_for_news(self) -> None:
        now = time.monotonic()
        for member in self._members.values():
            if member.ready and member.units and member.news_at <= now:
                member.news_at = math.inf
                self._calls[member.actor.news.remote()] = _Call(member, news=True)

    def _hear(self, landed: Any, member: _Member, reports: UnitReports) -> None:
        member.news_at = time.monotonic() + NEWS_SECONDS
        try:
            news = self._ray.get(landed)
        except self._ray.exceptions.RayError:
            return  # the calls for its units tell why
        for index, (done, failures) in news.items():
            if index in member.units:  # else all is known of it
                reports.add(index, done, failures)

    def _landed(self) -> Any:
        """A call that has ended, or None after a second."""
        if not self._calls:
            time.sleep(POLL_SECONDS)
            return None
        ended, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=POLL_SECONDS)
        return ended[0] if ended else None

    def _prepared(self, landed: Any, member: _Member) -> None:
        """An actor is ready, or not there."""
        result = self._result(landed, member, None)
        if result is not None:
            member.ready = True
            self._failed_starts[member.place] = 0
            self._count(*result)

    def _encoded_unit(self, landed: Any, member: _Member, index: int) -> EncodedUnit | None:
        """A unit; None where the actor died over it."""
        member.units.discard(index)
        member.alone = False
        return self._result(landed, member, index)

    def _result(self, landed: Any, member: _Member, index: int | None) -> Any:
        """What a call returned; None where the actor was lost."""
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(landed)
        except exceptions.RayTaskError as error:  # the actor lives, and says what is wrong
            if isinstance(error.cause, QScoreError):
                raise error.cause from None
            raise
        except exceptions.RayError as error:
            self._lost(member, index, error)
            return None

    def _lost(self, member: _Member, index: int | None, error: Exception) -> None:
        """An actor is not there: Ray starts it again, unless its node is gone."""
        reason = str(error).strip().split("\n")[0][:200]
        self._last_failure = f"node {member.place.address}: {reason}"
        if index is not None and member.place.node_id in self._nodes_alive():
            self._deaths[index] += 1
            if self._deaths[index] >= DEATHS_OF_A_UNIT:
                raise ClusterError(
                    f"unit {index} ({self._units[index].name}) ended its actor {DEATHS_OF_A_UNIT} times, "
                    f"the last time on {self._last_failure}; finished parts stay: the actor's log tells "
                    "more, a smaller batch_size (--batch-size) needs less memory"
                )
        if self._members.get(member.place) is not member:
            return  # it was let go already
        exceptions = self._ray.exceptions
        if getattr(error, "actor_init_failed", False):
            raise ClusterError(
                f"an actor cannot start on {self._last_failure}: is the same qscore-fast installed there?"
            )
        if index is None:
            self._failed_starts[member.place] += 1
        elif not member.ready:
            return  # the actor's other unit has told
        member.ready = False
        gone = isinstance(error, exceptions.ActorDiedError | exceptions.ActorUnschedulableError)
        if gone or self._failed_starts[member.place] >= STARTS_OF_AN_ACTOR:
            del self._members[member.place]
            self._ray.kill(member.actor)
        else:
            wait = FIRST_WAIT_SECONDS * 2 ** self._failed_starts[member.place]
            member.ask_at = time.monotonic() + min(wait, LONGEST_WAIT_SECONDS)

    def _nodes_alive(self) -> set[str]:
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    def _count(self, device: str, backend: str) -> None:
        ready = [member.place for member in self._members.values() if member.ready]
        if len(ready) > self._crew.encoders:
            nodes = len({place.node_id for place in ready})
            workers = sum(place.workers for place in ready)
            self._crew = Crew(device, backend, workers, len(ready), nodes)


class _Queue:
    """Units as they are claimed; one is claimed ahead, to know whether there are more."""

    def __init__(self, claims: Iterator[int]) -> None:
        self._claims = claims
        self.put_back: deque[int] = deque()

    def __bool__(self) -> bool:
        if not self.put_back:
            self.put_back.extend(index for index in [next(self._claims, None)] if index is not None)
        return bool(self.put_back)

    def popleft(self) -> int:
        return self.put_back.popleft()


def _on_cpu(encoder: Encoder) -> Encoder:
    """What actors need of it, without what only fine-tuning needs; the caller's stays where it is."""
    if encoder.device.type != "cpu":
        encoder = replace(encoder, module=copy.deepcopy(encoder.module).cpu())
    return replace(encoder, training_state=None)
