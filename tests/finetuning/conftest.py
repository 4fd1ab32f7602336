"""Images that the tests of the loop share, and one thread: small batches wait for each other on several."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sample_data import save_images


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small batches on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 real images in class folders."""
    return save_images(tmp_path_factory.mktemp("few"), 96)


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 others."""
    return save_images(tmp_path_factory.mktemp("held-out"), 100, start=300)
