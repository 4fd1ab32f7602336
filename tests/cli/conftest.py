"""Fixtures of the cli tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from sample_data import save_checkpoint, save_images


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small batches: a second thread costs more than it brings."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder, r = 256."""
    return save_checkpoint(tmp_path_factory.mktemp("encoder") / "encoder.pth")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 real images in class folders."""
    return save_images(tmp_path_factory.mktemp("images"), 600)
