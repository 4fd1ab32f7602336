"""The Ray engine on a real cluster of two nodes: the files of a local run, whatever happens to them."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray as library
import torch
from command import finish, qscore, start
from PIL import Image
from ray_nodes import Pooled, Unpicklable, add_node, cluster_of, kill_node
from small_run import PARTS, UNIT_SIZE, bytes_of, parts_of, save_small_source, score_command

import qscore_fast as qf
from qscore_fast.cli import main
from qscore_fast.errors import (
    ClusterError,
    EncoderError,
    ErrorRateError,
    MissingExtraError,
    SettingsError,
    SourceError,
)
from qscore_fast.images import IMAGENET
from qscore_fast.scoring import Progress, ScoreRun, ray_engine
from qscore_fast.scoring.ray_cluster import Place, places

SIZE = replace(IMAGENET, resize=32, crop=32)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with cluster_of(2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, source: Path) -> dict[str, bytes]:
    """The files of a local run."""
    return bytes_of(run(source, tmp_path_factory.mktemp("alone")).path)


def run(source: Path, out: Path, module: Pooled | None = None, **settings: Any) -> ScoreRun:
    encoder = qf.Encoder(module or Pooled(), SIZE, "pooled")
    return qf.score(
        source, encoder, out, unit_size=UNIT_SIZE, batch_size=4, embeddings="npy", eps=1.5,
        activation_eps=1.0, **settings,
    )  # fmt: skip


def ray(cluster: Any, **more: Any) -> dict[str, Any]:
    return {"engine": "ray", "ray_address": cluster.address, **more}


@pytest.fixture
def meeting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("meeting")


def test_two_nodes_write_the_files_of_one_process(
    tmp_path: Path, source: Path, alone: dict[str, bytes], cluster: Any, meeting: Path
) -> None:
    seen: list[Progress] = []
    encoder = Pooled(meeting=(meeting, 2))
    found = run(source, tmp_path / "out", encoder, **ray(cluster, progress=seen.append))
    assert bytes_of(tmp_path / "out") == alone
    session = found.session
    assert session is not None
    assert (session.encoders, session.nodes, session.workers) == (2, 2, 2)
    assert session.parts_done == PARTS
    assert (seen[-1].done, seen[-1].failed) == (303, 3)
    notes = json.loads((tmp_path / "out" / "parts" / "part-000000.json").read_text())
    assert notes["node"] == cluster.head_node.node_ip_address
    assert set(notes["seconds"]) >= {"decode", "encode", "activations"}


def test_a_local_run_goes_on_with_ray_and_the_other_way_round(
    tmp_path: Path, source: Path, alone: dict[str, bytes], cluster: Any
) -> None:
    out = tmp_path / "out"
    first = run(source, out, shard_index=0, num_shards=3)
    second = run(source, out, **ray(cluster, shard_index=1, num_shards=3, ray_actors=1))
    last = run(source, out)
    sessions = [first.session, second.session, last.session]
    assert [s.parts_done for s in sessions if s] == [PARTS // 3] * 3
    assert second.session is not None and second.session.encoders == 1
    assert bytes_of(out) == alone


def after(parts: int, event: Callable[[], None]) -> Callable[[Progress], None]:
    """Progress that lets something happen once, when so many parts' images are done."""
    happened = False

    def progress(state: Progress) -> None:
        nonlocal happened
        if not happened and state.done >= parts * UNIT_SIZE:
            happened = True
            event()

    return progress


def test_a_node_is_killed_in_mid_run(
    tmp_path: Path, source: Path, alone: dict[str, bytes], cluster: Any, meeting: Path
) -> None:
    """At most the units in flight are done again."""
    node = add_node(cluster)
    out = tmp_path / "out"
    there: dict[Path, tuple[int, int]] = {}

    def kill() -> None:
        kill_node(node)
        there.update((p, (p.stat().st_ino, p.stat().st_mtime_ns)) for p in parts_of(out))

    seen: list[Progress] = []
    event = after(20, kill)

    def progress(state: Progress) -> None:
        seen.append(state)
        event(state)

    encoder = Pooled(0.03, meeting=(meeting, 3))
    found = run(source, out, encoder, **ray(cluster, progress=progress))
    cluster.remove_node(node, allow_graceful=False)
    assert len(there) > 5
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in there} == there
    assert found.session is not None and found.session.encoders == 3
    assert found.session.parts_done == PARTS
    assert (seen[-1].done, seen[-1].failed) == (303, 3)  # what was begun twice counts once
    assert bytes_of(out) == alone


def test_the_error_rate_is_judged_while_a_unit_runs(tmp_path: Path, cluster: Any) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for i in range(400):
        path = images / f"{i:03}.png"
        if i % 2:
            path.write_bytes(b"broken")
        else:
            Image.fromarray(np.full((32, 32, 3), i // 2, np.uint8)).save(path)
    encoder = qf.Encoder(Pooled(0.2), SIZE, "pooled")
    with pytest.raises(ErrorRateError, match=r"of (\d+) images are bad") as caught:
        qf.score(
            images, encoder, tmp_path / "out", unit_size=400, batch_size=4, activation_eps=1.0, eps=1.5,
            max_error_rate=0.4, **ray(cluster),
        )  # fmt: skip
    known = int(re.findall(r"of (\d+) images are bad", str(caught.value))[0])
    assert 100 <= known < 400
    assert parts_of(tmp_path / "out") == []
    table = pq.read_table(tmp_path / "out" / "errors.parquet")
    assert len(table) >= 0.4 * known


def test_every_node_is_lost_and_another_one_joins(
    tmp_path: Path, source: Path, alone: dict[str, bytes]
) -> None:
    with cluster_of(1) as cluster:
        (only,) = cluster.worker_nodes

        def replace_it() -> None:
            kill_node(only)
            add_node(cluster)

        found = run(
            source, tmp_path / "out", Pooled(0.03), **ray(cluster, progress=after(10, replace_it))
        )
    assert found.session is not None and found.session.encoders == 1
    assert bytes_of(tmp_path / "out") == alone


def test_a_unit_that_kills_its_actor_ends_the_run_by_name(
    tmp_path: Path, source: Path, cluster: Any
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for i in range(60):
        level = 255 if i == 30 else 40 + i
        Image.fromarray(np.full((32, 32, 3), level, np.uint8)).save(images / f"{i:02}.png")
    white = float(SIZE.normalise(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)).mean())
    seen: list[Progress] = []
    with pytest.raises(ClusterError, match=r"unit 5 .* ended its actor 3 times"):
        run(images, tmp_path / "out", Pooled(poison=white), **ray(cluster, progress=seen.append))
    assert max(state.done for state in seen) <= 60
    done = {int(path.stem[5:]) for path in parts_of(tmp_path / "out")}
    assert 5 not in done
    assert done >= {0, 1, 2, 3}


def test_what_an_actor_says_is_wrong_arrives_as_itself(
    tmp_path: Path, source: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EncoderError, match=r"pooled returns .* for 4 images"):
        run(source, tmp_path / "a", Pooled(wrong=True), **ray(cluster))
    with pytest.raises(SettingsError, match="does not pickle .*no pickling of this"):
        run(source, tmp_path / "b", Unpicklable(), **ray(cluster))
    module = sys.modules[Pooled.__module__]
    library.cloudpickle.unregister_pickle_by_value(module)
    try:
        with pytest.raises(SettingsError, match="cannot unpickle .*No module named 'ray_nodes'"):
            run(source, tmp_path / "e", **ray(cluster))
    finally:
        library.cloudpickle.register_pickle_by_value(module)
    with monkeypatch.context() as patch:
        patch.setattr(ray_engine, "first_sample", lambda *_: "another image's")
        with pytest.raises(SourceError, match="reads other bytes for the first image"):
            run(source, tmp_path / "c", **ray(cluster))
    with monkeypatch.context() as patch:
        patch.setattr(ray_engine, "library_versions", lambda: {"numpy": "1.0+here", "pip": "1.0"})
        with pytest.raises(SettingsError, match=r"numpy .* instead of 1.0\+here, pip is missing"):
            run(source, tmp_path / "d", **ray(cluster))


def test_nobody_to_encode(
    tmp_path: Path, source: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "PATIENCE_SECONDS", 2.0)
    with pytest.raises(ClusterError, match="nobody to encode for 2 s: it has no node with a free"):
        run(source, tmp_path / "out", **ray(cluster, device="cuda"))


def test_settings_and_addresses_that_cannot_be(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, checkpoint: Path
) -> None:
    out = tmp_path / "out"
    for address, error, words in (
        ("127.0.0.1:1", ClusterError, "no Ray cluster answers at 127.0.0.1:1"),
        ("ray://127.0.0.1:10001", SettingsError, "ray_address must be"),
        ("here", SettingsError, "ray_address must be"),
    ):
        with pytest.raises(error, match=words):
            run(source, out, engine="ray", ray_address=address)
    with pytest.raises(SettingsError, match='go with engine="ray"'):
        run(source, out, ray_address="auto")
    with pytest.raises(SettingsError, match='engine must be "local" or "ray"'):
        run(source, out, engine="dask")
    with pytest.raises(SettingsError, match="ray_actors must be a whole number"):
        run(source, out, engine="ray", ray_actors=0)
    with pytest.raises(SettingsError, match='device must be "cpu" or "cuda"'):
        run(source, out, engine="ray", device="cuda:1")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"qscore-fast\[ray\]"):
        run(source, out, engine="ray", ray_address="auto")
    command = [str(word) for word in score_command(source, checkpoint, tmp_path / "cli")]
    assert main([*command, "--engine", "ray", "--processes", "2"]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_the_command_is_stopped_and_goes_on(
    tmp_path: Path, source: Path, checkpoint: Path, cluster: Any
) -> None:
    """SIGTERM is the command's, though Ray would take it; a run that is there needs no cluster."""
    local = qscore(*score_command(source, checkpoint, tmp_path / "local"))
    assert local.returncode == 0, local.stderr
    out = tmp_path / "out"
    command = (*score_command(source, checkpoint, out), "--json", "--engine", "ray")
    on_cluster = (*command, "--ray-address", cluster.address)
    process = start(*on_cluster)
    while len(parts_of(out)) < 5 and process.poll() is None:
        pass
    process.send_signal(signal.SIGTERM)
    stopped = finish(process)
    assert stopped.returncode == 143, stopped.stderr
    assert 5 <= len(parts_of(out)) < PARTS
    found = qscore(*on_cluster)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["session"]["nodes"] == 2
    assert bytes_of(out) == bytes_of(tmp_path / "local")
    again = qscore(*command, "--ray-address", "127.0.0.1:1")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["session"]["parts_done"] == 0


def test_a_cluster_of_this_machine_is_started_and_ended(
    tmp_path: Path, source: Path, alone: dict[str, bytes], cluster: Any
) -> None:
    found = run(source, tmp_path / "out", engine="ray", ray_address="local", ray_actors=1)
    assert not library.is_initialized()
    assert found.session is not None and found.session.nodes == 1
    assert bytes_of(tmp_path / "out") == alone


def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {
        "NodeID": name, "NodeManagerAddress": f"ip-{name}", "Alive": alive, "Resources": resources
    }  # fmt: skip


def test_places() -> None:
    head = node("h", CPU=0.0, memory=1e9)
    cores = [node("a", CPU=8.0), node("b", CPU=64.0), node("c", alive=False, CPU=8.0), head]
    assert places(cores, None, None) == [
        Place("a", "ip-a", 0, 8, 0, 8),
        Place("b", "ip-b", 0, 64, 0, 16),
    ]
    assert places(cores, "cuda", None) == []
    mixed = [node("g", CPU=16.0, GPU=2.0), node("a", CPU=8.0), head]
    assert places(mixed, None, None) == [
        Place("g", "ip-g", 0, 8, 1, 8),
        Place("g", "ip-g", 1, 8, 1, 8),
    ]
    assert places(mixed, "cpu", 3) == [
        Place("g", "ip-g", 0, 16, 0, 3),
        Place("a", "ip-a", 0, 8, 0, 3),
    ]
    assert places([node("g", GPU=1.0)], None, None) == [Place("g", "ip-g", 0, 0, 1, 1)]
