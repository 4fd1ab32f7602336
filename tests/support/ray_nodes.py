"""A real Ray cluster on this machine, one raylet a node, and encoders that do things on its nodes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

OBJECT_STORE = 100 * 2**20


@contextmanager
def cluster_of(num_nodes: int) -> Iterator[Any]:
    """A head without cores, and nodes of one core each; ``cluster.address`` is what to join."""
    import ray
    from ray.cluster_utils import Cluster

    # What is defined here is sent as it is: the nodes cannot import the tests.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Else they wait for whatever else the machine does.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": OBJECT_STORE,
            "include_dashboard": False,
        },
    )
    try:
        for _ in range(num_nodes):
            add_node(cluster)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster: Any) -> Any:
    """One more node, with one core."""
    return cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)


def kill_node(node: Any) -> None:
    """SIGKILL to its raylet and to everything that the raylet started."""
    raylets = [info.process.pid for info in node.all_processes["raylet"]]
    started = [child for pid in raylets for child in _children(pid)]
    for pid in (*raylets, *started):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


class Pooled(nn.Module):
    """Means over a grid of patches through a fixed matrix; r = 64. It can be slow, or worse.

    Args:
        seconds: that a batch takes at least.
        poison: this mean brightness of a normalised image ends the process, at once.
        wrong: returns something else than one vector an image, wherever it is not tried out alone.
        meeting: a folder, and how many processes have to be in it before the first batch is encoded.
    """

    def __init__(
        self,
        seconds: float = 0.0,
        poison: float | None = None,
        wrong: bool = False,
        meeting: tuple[Path, int] | None = None,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(64, 49, generator=generator))
        self.seconds = seconds
        self.poison = poison
        self.wrong = wrong
        self.meeting = meeting

    def forward(self, images: Tensor) -> Tensor:
        if self.meeting is not None and len(images) > 1:
            _meet(*self.meeting)
            self.meeting = None
        time.sleep(self.seconds)
        if self.poison is not None and (images.mean((1, 2, 3)) - self.poison).abs().min() < 1e-4:
            os._exit(7)
        if self.wrong and len(images) > 1:
            return images
        cells = nn.functional.adaptive_avg_pool2d(images.mean(1), 7).flatten(1)
        return torch.stack([self.weight @ cell for cell in cells]).abs()


def _meet(folder: Path, processes: int) -> None:
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + 100
    while len(list(folder.iterdir())) < processes:
        if time.monotonic() > end:
            raise TimeoutError(f"fewer than {processes} processes encode")
        time.sleep(0.01)


class Unpicklable(Pooled):
    """Cannot be sent."""

    def __reduce__(self) -> Any:
        raise TypeError("no pickling of this")
