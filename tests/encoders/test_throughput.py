"""Rows of encoder_throughput: which there are, and what stands in them."""

from __future__ import annotations

import warnings

import pytest
import torch
from small_networks import TokenMean, small_encoder
from torch import Tensor

from qscore_fast.encoders import throughput
from qscore_fast.encoders.throughput import default_variants, encoder_throughput
from qscore_fast.errors import SettingsError


def test_rows() -> None:
    encoder = small_encoder()
    variants = [
        {"precision": "bfloat16"},
        {"fold_batch_norm": True},
        {"precision": "int8"},
        {"fold_batch_norm": True},
    ]
    rows = encoder_throughput(encoder, 4, 0.01, variants=variants)
    assert [row.name for row in rows] == ["float32", "bfloat16", "float32+folded", "int8"]
    for row in rows[:3]:
        assert row.images_per_second is not None
        assert row.images_per_second > 0
        assert row.error is None
    assert (rows[0].cosine, rows[0].max_difference) == (pytest.approx(1, abs=1e-12), 0)
    images = throughput._images(encoder, 4)
    expected, found = encoder(images), encoder.optimised("bfloat16")(images)
    assert rows[1].max_difference == pytest.approx((expected - found).abs().max().item())
    cosines = [
        torch.dot(a, b) / (a.norm() * b.norm()) for a, b in zip(expected, found, strict=True)
    ]
    assert rows[1].cosine == pytest.approx(min(cosines).item(), abs=1e-6)
    assert rows[1].cosine < 1 - 1e-7 < rows[2].cosine  # type: ignore[operator]
    assert rows[3].images_per_second is None
    assert "precision must be one of" in str(rows[3].error)
    assert rows[1].to_json()["options"] == {"precision": "bfloat16"}


def test_features_that_are_not_finite_are_an_error_in_the_row() -> None:
    module = TokenMean()
    with torch.no_grad():
        module.out.weight.fill_(1e5)
    _, row = encoder_throughput(small_encoder(module), 2, 0.01, variants=[{"precision": "float16"}])
    assert row.error == "its features are not all finite"
    assert row.images_per_second is not None
    assert row.cosine is None


def test_a_variant_that_breaks_while_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = throughput._call_seconds

    def out_of_memory(encoder: object, images: Tensor) -> float:
        if encoder.precision == "bfloat16":  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("no memory\nmore")
        return real(encoder, images)  # type: ignore[arg-type]

    monkeypatch.setattr(throughput, "_call_seconds", out_of_memory)
    rows = encoder_throughput(
        small_encoder(TokenMean()), 2, 0.01, variants=[{"precision": "bfloat16"}]
    )
    assert rows[0].images_per_second is not None
    assert (rows[1].images_per_second, rows[1].error) == (None, "no memory")


def test_a_compiler_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(_: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", no_compiler)
    variant = {"compile": True, "fold_batch_norm": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = encoder_throughput(small_encoder(TokenMean()), 2, 0.01, variants=[variant])
    assert [row.name for row in rows] == ["float32", "float32+folded+compiled"]
    assert rows[1].images_per_second is None
    assert "no compiler" in str(rows[1].error)


def test_variants_that_come_out_the_same_are_one_row() -> None:
    rows = encoder_throughput(
        small_encoder(TokenMean()),
        2,
        0.01,
        variants=[v for v in default_variants("cpu") if "compile" not in v],
    )
    assert [row.name for row in rows] == ["float32", "bfloat16-autocast", "bfloat16"]


def test_default_variants() -> None:
    precisions = {v.get("precision", "float32") for v in default_variants("cuda")}
    assert precisions == {
        "float32", "bfloat16", "bfloat16-autocast", "float16", "float16-autocast"
    }  # fmt: skip
    assert not any(v.get("precision") == "float16" for v in default_variants("cpu"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"batch_size": 0}, "batch_size must be .*got 0"),
        ({"seconds": float("inf")}, "seconds must be"),
        ({"variants": [{"colour": "red"}]}, "a variant may have .*colour"),
    ],
)
def test_errors(arguments: dict[str, object], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        encoder_throughput(small_encoder(TokenMean()), **arguments)  # type: ignore[arg-type]
