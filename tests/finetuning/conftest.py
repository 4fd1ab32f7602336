"""Images that the tests of the loop share."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_data import save_images


@pytest.fixture(scope="session")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 real images in class folders."""
    return save_images(tmp_path_factory.mktemp("few"), 96)


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 others."""
    return save_images(tmp_path_factory.mktemp("held-out"), 100, start=300)
