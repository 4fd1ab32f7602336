"""The census and D, against NumPy; the features file against damage and malice."""

from __future__ import annotations

import dataclasses
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qscore_fast as qf
from qscore_fast import reference


def rows(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 60, generator=generator).relu() ** 2


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_parts_merge_to_the_whole(sizes: list[int]) -> None:
    h = rows(sum(sizes))
    whole = qf.FeatureCensus(60, 2.0).update(h)
    merged = qf.FeatureCensus(60, 2.0)
    for part in h.split(sizes):
        merged.merge(qf.FeatureCensus(60, 2.0).update(part))
    assert torch.equal(merged.counts, whole.counts)
    assert torch.equal(whole.counts, reference.activation_counts(h.double(), 2.0))
    assert merged.num_samples == whole.num_samples == len(h)


def test_discovery_is_numpys_percentile() -> None:
    h = rows(500, seed=1) * torch.linspace(0.3, 1.5, 60)
    census = qf.FeatureCensus(60, 2.0).update(h)
    percent = reference.highly_active(h.double(), 2.0).double().mean(0).numpy() * 100
    np.testing.assert_allclose(census.percent.numpy(), percent, rtol=1e-12)
    for lower, upper in ((50, 95), (0, 100), (20, 30)):
        D = qf.discriminative_features(census, lower, upper)
        low, high = np.percentile(percent, [lower, upper])
        expected = (percent >= low - 1e-9) & (percent <= high + 1e-9) & (percent > 0)
        np.testing.assert_array_equal(D.mask.numpy(), expected)
        np.testing.assert_array_equal(D.indices.numpy(), np.flatnonzero(expected))
        assert len(D) == expected.sum()


def test_a_census_of_both_sides() -> None:
    h = rows(300, seed=2) - rows(300, seed=3)
    census = qf.FeatureCensus(60, 2.0, two_sided=True).update(h[:100])
    census.merge(qf.FeatureCensus(60, 2.0, two_sided=True).update(h[100:]))
    above, below = (reference.highly_active(x.double(), 2.0) for x in (h, -h))
    assert below.any()
    assert torch.equal(census.counts, (above | below).sum(0))
    assert qf.discriminative_features(census).two_sided
    again = qf.FeatureCensus.from_counts(census.counts, 300, 2.0, two_sided=True)
    assert qf.discriminative_features(again).two_sided
    with pytest.raises(ValueError, match="two_sided = False into one with two_sided = True"):
        census.merge(qf.FeatureCensus(60, 2.0))


def test_a_file_from_before_two_sided_is_one_sided(tmp_path: Path) -> None:
    D = qf.discriminative_features(qf.FeatureCensus(60, 2.5, two_sided=True).update(rows(80)))
    D.save(tmp_path / "new.npz")
    assert qf.DiscriminativeFeatures.load(tmp_path / "new.npz").two_sided is True
    with np.load(tmp_path / "new.npz") as fields:
        np.savez(tmp_path / "old.npz", **{k: v for k, v in fields.items() if k != "two_sided"})
    assert qf.DiscriminativeFeatures.load(tmp_path / "old.npz").two_sided is False


def test_ties_stay_together_and_dead_features_stay_out() -> None:
    counts = torch.tensor([0] * 6 + [5, 5, 5, 9])
    D = qf.discriminative_features(qf.FeatureCensus.from_counts(counts, 10), 50, 95)
    # The 50th percentile is 0, the 95th lies between 5 and 9: all three fives, no zero, not the nine.
    assert D.indices.tolist() == [6, 7, 8]


def test_save_and_load(tmp_path: Path) -> None:
    D = qf.discriminative_features(qf.FeatureCensus(60, 2.5).update(rows(80)), 40, 90)
    D = dataclasses.replace(D, fingerprint="abc")
    D.save(tmp_path / "features.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["features.npz"]
    again = qf.DiscriminativeFeatures.load(tmp_path / "features.npz")
    assert torch.equal(again.mask, D.mask)
    assert torch.equal(again.counts, D.counts)
    for name in (
        "num_samples",
        "eps",
        "lower",
        "upper",
        "fingerprint",
        "num_features",
        "two_sided",
    ):
        assert getattr(again, name) == getattr(D, name)
    with np.load(tmp_path / "features.npz", allow_pickle=False) as plain:
        np.testing.assert_array_equal(plain["mask"], D.mask.numpy())


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def damaged_files(folder: Path) -> dict[str, bytes]:
    D = qf.discriminative_features(qf.FeatureCensus(60, 2.5).update(rows(80)))
    D.save(folder / "good.npz")
    good = (folder / "good.npz").read_bytes()

    def archive(**arrays: np.ndarray) -> bytes:
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    def with_counts(counts: np.ndarray) -> bytes:
        with np.load(io.BytesIO(good)) as fields:
            return archive(**{**fields, "counts": counts})

    hostile = io.BytesIO()
    with zipfile.ZipFile(hostile, "w") as file:
        file.writestr("format.npy", pickle.dumps(Touch(folder / "executed")))
    objects = np.array([Touch(folder / "executed")], dtype=object)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("counts.npy", bytes(300 * 2**20))
    return {
        "empty": b"",
        "text": b"not an archive",
        "truncated": good[: len(good) // 2],
        "other": archive(x=np.zeros(3)),
        "shape": with_counts(np.zeros(3, np.int64)),
        "float": with_counts(np.full(60, 0.5)),
        "pickle": pickle.dumps(Touch(folder / "executed")),
        "pickle_inside": hostile.getvalue(),
        "objects": with_counts(objects),
        "bomb": bomb.getvalue(),
    }


def test_damaged_and_hostile_files(tmp_path: Path) -> None:
    for name, content in damaged_files(tmp_path).items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(qf.QScoreError, match=f"{name}.npz"):
            qf.DiscriminativeFeatures.load(path)
    assert not (tmp_path / "executed").exists()
    with pytest.raises(qf.QScoreError, match="does not exist"):
        qf.DiscriminativeFeatures.load(tmp_path / "missing.npz")


def test_wrong_use() -> None:
    census = qf.FeatureCensus(60, 2.0)
    with pytest.raises(ValueError, match=r"\(5, 61\).*r = 60"):
        census.update(torch.zeros(5, 61))
    with pytest.raises(ValueError, match="no samples"):
        qf.discriminative_features(census)
    census.update(rows(5))
    with pytest.raises(ValueError, match="eps 3.0.*eps 2.0"):
        census.merge(qf.FeatureCensus(60, 3.0))
    with pytest.raises(ValueError, match="60 and 50"):
        qf.discriminative_features(census, 60, 50)
    with pytest.raises(ValueError, match="0..2 samples"):
        qf.FeatureCensus.from_counts(torch.tensor([1, 3]), 2)
    with pytest.raises(ValueError, match="int64"):
        qf.FeatureCensus.from_counts(torch.tensor([1.0]), 2)
    with pytest.raises(ValueError, match="num_features is 0"):
        qf.FeatureCensus(0)
