"""What all tests share: Triton's interpreter where there is no GPU, and the three backends."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from coverage_pause import coverage_paused

# Read by Triton when a kernel is decorated, so it must be set before the kernels are imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Coverage watches the workers of make test, not what tests start: that would take a quarter longer.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

import qscore_fast as qf

# In a source tree without an installation, kernels/ lies beside the package.
if importlib.util.find_spec("qscore_fast.kernels") is None:
    qf.__path__.append(str(Path(__file__).parents[1]))


# Each core takes a file at a time (make test): one of these at the end would leave the other cores idle.
LONG_FILES = (
    "scoring/test_ray_engine.py",
    "kernels/test_kernels.py",
    "kernels/test_triton_compiled.py",
    "cli/test_interruptions.py",
    "cli/test_many_writers.py",
    "benchmarks/test_science.py",
    "cli/test_kill.py",
    "test_wheel.py",
    "benchmarks/test_table2.py",
    "kernels/test_score_maps.py",
    "benchmarks/test_store_benchmark.py",
    "cli/test_processes.py",
    "cli/test_demo.py",
    "test_allocator.py",
    "finetuning/objectives/test_distributed.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, the others by how many tests they have."""
    first = {Path(__file__).parent / name: n for n, name in enumerate(LONG_FILES)}
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (first.get(item.path, len(first)), -tests[item.path]))


@pytest.fixture(params=["native", "triton", "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test once on each backend, by name."""
    pause = coverage_paused() if request.param == "triton" else nullcontext()
    with pause, qf.use_backend(request.param):
        yield request.param


@pytest.fixture
def device(backend: str) -> torch.device:
    """Where the backend computes: a GPU for Triton if there is one, the CPU otherwise."""
    on_gpu = backend != "native" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


# The GPU tests share this file and may lack torchvision and Pillow, so these import late.
@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder, r = 256."""
    from sample_data import save_checkpoint

    return save_checkpoint(tmp_path_factory.mktemp("encoder") / "encoder.pth")


@pytest.fixture(scope="session")
def encoder(checkpoint: Path) -> qf.Encoder:
    """That encoder, on the CPU."""
    return qf.load_encoder(checkpoint, device="cpu")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 real images in class folders."""
    from sample_data import save_images

    return save_images(tmp_path_factory.mktemp("images"), 600)
