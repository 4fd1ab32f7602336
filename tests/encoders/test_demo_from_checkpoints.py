"""The demo, from file to picture, with a checkpoint of each of the eight systems."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from published import ROWS

from qscore_fast.demo import run_demo
from qscore_fast.encoders import load_encoder
from qscore_fast.encoders.layouts import SYSTEMS

EIGHT = {
    "simclr": "simclr-v1-official",
    "swav": "swav-official",
    "moco_v2": "moco-v2-official",
    "byol": "byol-official",
    "dino": "dino-vit-s16-official-full",
    "simsiam": "simsiam-official",
    "vicreg": "vicreg-official-full",
    "barlow_twins": "barlow-official-full",
}


@pytest.mark.parametrize("system", EIGHT)
def test_demo(system: str, tmp_path: Path) -> None:
    assert system in SYSTEMS
    (row,) = (row for row in ROWS if row.id == EIGHT[system])
    encoder = load_encoder(row.write(tmp_path).path, device="cpu")
    assert encoder.system == system
    result = run_demo(tmp_path / "demo", encoder=encoder, limit=12, two_sided=system == "dino")
    summary = result.scoring.summary
    assert (summary["num_images"], summary["num_failed"]) == (12, 0)
    assert summary["system"] == system
    assert len(set(result.scoring.scores()["l2"].to_pylist())) == 12, "images must differ"
    with Image.open(result.picture) as picture:
        assert picture.width > 500
