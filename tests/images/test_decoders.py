"""Both decoders give the same images, scores and reasons; without TorchCodec all but itself works."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
from pathlib import Path
from types import ModuleType

import hostile_images
import numpy as np
import pytest
import torch
from hostile_images import jpeg_bytes, photo
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

import qscore_fast as qf
from qscore_fast.errors import ImageError, SettingsError
from qscore_fast.images import (
    Decoder,
    PillowDecoder,
    Sample,
    choose_decoder,
    path_of_sample_id,
    quiet_pillow,
)


def _torchcodec_imports() -> bool:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


needs_torchcodec = pytest.mark.skipif(
    not _torchcodec_imports(), reason="torchcodec does not import with this torch"
)
BOTH = ["pillow", pytest.param("torchcodec", marks=needs_torchcodec)]


def outcome(decoder: Decoder, sample: Sample, mode: str = "RGB") -> np.ndarray | str:
    """The pixels, or the reason why there are none."""
    try:
        with quiet_pillow():
            image = decoder.decode(sample, mode)
    except ImageError as error:
        return str(error)
    assert image.mode == mode
    return np.asarray(image)


def jpeg(image: Image.Image, **options: object) -> Sample:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return Sample("a.jpg", content=file.getvalue())


def photographs() -> list[Image.Image]:
    return [Image.fromarray(pixels).resize((500, 375)) for pixels in load_sample_images().images]


@needs_torchcodec
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_hostile_files_end_the_same_under_both(tmp_path: Path, mode: str) -> None:
    good, bad = hostile_images.save_hostile_folder(tmp_path)
    pillow, torchcodec = choose_decoder("pillow"), choose_decoder("torchcodec")
    for sample_id in sorted(good | set(bad)):
        path = os.path.join(os.fsencode(tmp_path), path_of_sample_id(sample_id))
        sample = Sample(sample_id, path=path)
        expected = outcome(pillow, sample, mode)
        assert isinstance(expected, str) == (sample_id in bad and "thread" not in sample_id)
        np.testing.assert_array_equal(outcome(torchcodec, sample, mode), expected)


@needs_torchcodec
def test_photographs_have_the_same_pixels_however_they_are_coded() -> None:
    pillow, torchcodec = choose_decoder("pillow"), choose_decoder("torchcodec")
    for image in [*photographs(), photo(37, 53), photo(1, 1), photo(61, 17, "L")]:
        codings = [{"subsampling": 2}, {"progressive": True}, {"restart_marker_blocks": 3}]
        for options in codings if image.mode == "L" else [*codings, {"keep_rgb": True}]:
            sample = jpeg(image, quality=85, **options)
            for mode in ("RGB", "L"):
                expected = outcome(pillow, sample, mode)
                np.testing.assert_array_equal(outcome(torchcodec, sample, mode), expected)


@needs_torchcodec
def test_torchcodec_does_decode_the_jpegs(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchcodec.decoders

    decoded = []

    def counted(content: bytes, mode: str) -> torch.Tensor:
        decoded.append(mode)
        return decode_jpeg(content, mode=mode)

    decode_jpeg = torchcodec.decoders.decode_jpeg
    monkeypatch.setattr(torchcodec.decoders, "decode_jpeg", counted)
    decoder = choose_decoder("torchcodec")
    for image in (photo(), photo(mode="L"), photo(mode="CMYK")):
        outcome(decoder, jpeg(image))
    assert decoded == ["RGB", "GRAY"]


@needs_torchcodec
def test_a_jpeg_cut_anywhere_is_an_error_with_the_same_reason() -> None:
    content = jpeg_bytes(photo(64, 48))
    pillow, torchcodec = choose_decoder("pillow"), choose_decoder("torchcodec")
    for end in range(0, len(content), 7):
        sample = Sample("a.jpg", content=content[:end])
        reason = outcome(torchcodec, sample)
        assert isinstance(reason, str)
        assert reason == outcome(pillow, sample)


@needs_torchcodec
def test_features_and_scores_do_not_depend_on_the_decoder() -> None:
    encoder = qf.load_encoder("demo")
    h = {}
    for name in ("pillow", "torchcodec"):
        decoder = choose_decoder(name)
        images = [
            encoder.preprocess(decoder.decode(jpeg(image), encoder.preprocess.mode))
            for image in photographs()
        ]
        with torch.inference_mode():
            h[name] = encoder(torch.stack(images)).float()
    assert h["pillow"].std() > 0
    torch.testing.assert_close(h["torchcodec"], h["pillow"], rtol=0, atol=0)
    scores = {name: qf.q_score(features, eps=1.0) for name, features in h.items()}
    torch.testing.assert_close(scores["torchcodec"], scores["pillow"], rtol=0, atol=0)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("orientation", [1, 3, 6, 99])
def test_exif_rotation_is_not_applied(name: str, orientation: int) -> None:
    image, exif = photo(40, 30), Image.Exif()
    exif[0x0112] = orientation
    turned, plain = jpeg(image, exif=exif), jpeg(image)
    decoder = choose_decoder(name)
    pixels = outcome(decoder, turned)
    np.testing.assert_array_equal(pixels, outcome(decoder, plain))
    assert turned.content is not None
    with Image.open(io.BytesIO(turned.content)) as opened:
        as_meant = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(pixels, as_meant) == (orientation in (1, 99))


@pytest.mark.parametrize("name", [*BOTH, "nvjpeg"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_rotation_is_applied_where_asked_for(name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = jpeg(photo(40, 30), exif=exif)
    assert turned.content is not None
    with Image.open(io.BytesIO(turned.content)) as opened:
        as_meant = np.asarray(ImageOps.exif_transpose(opened))
    decoder = choose_decoder(name, exif_rotation=True)
    np.testing.assert_array_equal(outcome(decoder, turned), as_meant)
    assert decoder.to_json()["exif_rotation"] is True


@needs_torchcodec
@pytest.mark.parametrize("count", [0, 1, 2])
def test_damaged_exif_does_not_turn_the_image(count: int) -> None:
    plain = jpeg_bytes(photo())
    orientation = struct.pack("<HHIHH", 0x0112, 3, count, 3, 0)
    body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + orientation + bytes(4)
    content = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]
    expected = outcome(choose_decoder("pillow"), Sample("a", content=plain))
    pixels = outcome(choose_decoder("torchcodec"), Sample("a", content=content))
    np.testing.assert_array_equal(pixels, expected)
    if count == 0:  # with any values the field can be read
        turning = choose_decoder("pillow", exif_rotation=True)
        np.testing.assert_array_equal(outcome(turning, Sample("a", content=content)), expected)


@pytest.mark.parametrize("name", BOTH)
def test_limits_are_checked_from_the_header(name: str) -> None:
    sample = jpeg(photo(100, 50))
    assert isinstance(outcome(choose_decoder(name, 5000), sample), np.ndarray)
    reason = outcome(choose_decoder(name, 4999), sample)
    assert reason == "100 x 50 pixels is above the limit of 4,999 pixels"
    assert outcome(choose_decoder(name), Sample("a", content=b"")) == "the file is empty"
    assert outcome(choose_decoder(name), Sample("a", error=ImageError("gone"))) == "gone"


def test_what_the_record_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_decoder("auto", 7) == PillowDecoder(7)
    assert choose_decoder("pillow", 7).to_json() == {"name": "pillow", "max_pixels": 7}
    fake = ModuleType("torchcodec")
    fake.__version__ = "1.2"  # type: ignore[attr-defined]
    decoders = ModuleType("torchcodec.decoders")
    decoders.decode_jpeg = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", fake)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    decoder = choose_decoder("torchcodec", 7)
    assert decoder.to_json() == {"name": "torchcodec", "version": "1.2", "max_pixels": 7}
    assert pickle.loads(pickle.dumps(decoder)) == decoder


def test_without_torchcodec_asking_for_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(SettingsError, match=r"qscore-fast\[torchcodec\]") as raised:
        choose_decoder("torchcodec")
    assert "import of torchcodec" in str(raised.value)
    assert isinstance(outcome(choose_decoder("auto"), jpeg(photo())), np.ndarray)


@pytest.mark.parametrize(
    ("name", "max_pixels", "reason"),
    [("opencv", 1, "got 'opencv'"), ("pillow", 0, "max_pixels must be at least 1, got 0")],
)
def test_bad_settings_are_named(name: str, max_pixels: int, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        choose_decoder(name, max_pixels)  # type: ignore[arg-type]
