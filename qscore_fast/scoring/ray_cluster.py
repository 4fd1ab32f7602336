"""Joining a Ray cluster, and which places its nodes have for encoders."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from qscore_fast.errors import ClusterError, MissingExtraError, SettingsError
from qscore_fast.scoring.prefetch import MOST_WORKERS

CONNECT_SECONDS = 5.0


def import_ray() -> Any:
    """The library; MissingExtraError without it."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("Ray", "ray") from error
    return ray


@contextmanager
def joined(address: str | None) -> Iterator[Any]:
    """Ray, connected; on leaving, as it was before.

    Args:
        address: "host:port" or "auto"; None takes RAY_ADDRESS, then a cluster that runs on this machine,
            then starts one of this machine alone. A process that is connected already stays so.

    Raises:
        ClusterError: there is no cluster at that address, or it does not take this process.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is not None:
        _check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    where = "on this machine" if address is None else f"at {address}"
    with _signal_handlers_kept():
        try:
            ray.init(
                address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False
            )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ClusterError(
                f"cannot join a Ray cluster {where}: {reason[:300]} (ray status shows whether it runs; "
                "this machine must be one of its nodes, with the same versions of Ray and Python)"
            ) from error
    try:
        yield ray
    finally:
        with _signal_handlers_kept():
            ray.shutdown()


def _check_address(address: str) -> None:
    """An answer within seconds, where Ray would try for minutes."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise SettingsError(
            f'ray_address must be "auto", "local" or host:port of the cluster\'s head (port 6379 unless it '
            f"was started otherwise), got {address!r}; a ray:// client cannot run a score: submit it as a "
            "job, or run it on a node"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error}): start one (ray start --head), or mend the "
            "address (--ray-address)"
        ) from error


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; it stays with whoever had it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError):  # not the main thread: Ray had no chance either
            signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Place:
    """Room for one encoder on a node: a GPU with its share of the cores, or all of the cores.

    Attributes:
        number: which of the node's places.
        workers: decoding threads that fit.
    """

    node_id: str
    address: str
    number: int
    num_cpus: int
    num_gpus: int
    workers: int


def places(nodes: list[dict[str, Any]], device: str | None, workers: int | None) -> list[Place]:
    """Where encoders can run.

    Args:
        nodes: of ``ray.nodes()``; those that are dead have no place.
        device: "cuda", "cpu", or None: the GPUs if there are any, otherwise the cores. A run does not
            mix them, since their rounding differs.
        workers: decoding threads of each; by default its share of the node's cores, at most 16.
    """
    alive = [node for node in nodes if node["Alive"]]
    if device is None:
        device = "cuda" if any(_count(node, "GPU") for node in alive) else "cpu"
    found = []
    for node in alive:
        cpus, gpus = _count(node, "CPU"), _count(node, "GPU")
        number = gpus if device == "cuda" else min(1, cpus)
        share = cpus // max(1, number)
        for i in range(number):
            found.append(
                Place(
                    node["NodeID"],
                    node["NodeManagerAddress"],
                    i,
                    share,
                    int(device == "cuda"),
                    workers or min(MOST_WORKERS, max(1, share)),
                )
            )
    return found


def _count(node: dict[str, Any], resource: str) -> int:
    return int(node["Resources"].get(resource, 0))
