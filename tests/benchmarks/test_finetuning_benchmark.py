"""The benchmark of fine-tuning: its contenders compute the same, and it names what limits it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_training import small_encoder

from benchmarks.finetuning import input_pipeline, step_time
from benchmarks.finetuning.networks import Case

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def case() -> Case:
    return Case("small", small_encoder(system="simclr"), batch_size=4, side=28, bf16=False)


def test_all_contenders_make_steps(case: Case) -> None:
    found = step_time.measure(case, CPU, rounds=3)
    assert set(found["seconds"]) == {"without", "with", "plain PyTorch"}
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert found["largest_difference"] < 1e-4 and found["rows"] == 8


def test_a_wrong_regulariser_has_no_time(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_time.reference, "q_score_loss", lambda h, *_: h.sum())
    with pytest.raises(RuntimeError, match="the regularisers differ"):
        step_time.measure(case, CPU, rounds=1)


def test_the_limit_of_the_input_is_named(case: Case, tmp_path: Path) -> None:
    found = input_pipeline.measure(case, CPU, steps=2, images=12, folder=tmp_path, workers=0)
    alone = found["loader_alone_images_per_second"]
    slow = alone < 4 / found["seconds_from_crops_in_memory"]
    assert (found["bottleneck"] == "decoding and augmentation") == slow
    assert found["over_memory"] == found["seconds_from_disk"] / found["seconds_from_memory"]
