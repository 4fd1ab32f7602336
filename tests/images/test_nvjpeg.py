"""JPEGs that wait for the GPU: which ones, and what becomes of them. Where there is no GPU the same code
decodes on the CPU, where torchvision's decoder is libjpeg-turbo as Pillow's.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path

import hostile_images
import numpy as np
import pytest
import torch
from hostile_images import jpeg_bytes, photo
from PIL import Image
from sample_data import save_checkpoint
from sklearn.datasets import load_sample_images

import qscore_fast as qf
from qscore_fast.errors import ImageError, SettingsError
from qscore_fast.images import Preprocess, Sample, choose_decoder, nvjpeg
from qscore_fast.images.nvjpeg import EncodedJpeg, decode_jpegs
from qscore_fast.scoring import encode_unit, encoding_lane

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# On smooth images nvJPEG's chroma upsampling and cosine transform stay this near libjpeg's.
LEVELS = 3.0 if DEVICE.type == "cuda" else 1.0


def waiting(
    content: bytes, mode: str = "RGB", exif_rotation: bool = False
) -> EncodedJpeg | Image.Image:
    decoder = choose_decoder("nvjpeg", exif_rotation=exif_rotation)
    return decoder.decode_or_postpone(Sample("a", content=content), mode)


def photographs() -> list[Image.Image]:
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    return [p.resize(size) for p in photos for size in ((500, 375), (240, 320), (224, 224))]


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return file.getvalue()


def test_only_jpegs_of_the_wanted_kind_wait_for_the_gpu() -> None:
    assert isinstance(waiting(jpeg_bytes(photo(40, 30))), EncodedJpeg)
    assert isinstance(waiting(jpeg_bytes(photo(40, 30, "L")), "RGB"), EncodedJpeg)
    assert isinstance(waiting(jpeg_bytes(photo(40, 30, "L")), "L"), EncodedJpeg)
    png = io.BytesIO()
    photo(40, 30).save(png, "PNG")
    for content, mode in (
        (png.getvalue(), "RGB"),
        (jpeg_bytes(photo(40, 30, "CMYK")), "RGB"),
        (jpeg_bytes(photo(40, 30)), "L"),
    ):
        image = waiting(content, mode)
        assert isinstance(image, Image.Image)
        expected = choose_decoder("pillow").decode(Sample("a", content=content), mode)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


def test_what_is_wrong_with_a_header_shows_before_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="above the limit of 1,000 pixels"):
        choose_decoder("nvjpeg", 1000).decode_or_postpone(
            Sample("a", content=jpeg_bytes(photo(40, 30))), "RGB"
        )
    with pytest.raises(ImageError, match="not an image of a known format"):
        waiting(b"no image")
    monkeypatch.setattr(nvjpeg, "MOST_PIXELS", 1199)
    assert isinstance(waiting(jpeg_bytes(photo(40, 30))), Image.Image)


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(),
        Preprocess(resize=(96, 128), crop=None, interpolation="bicubic"),
        Preprocess(resize=(64, 64), crop=None, crop_fraction=0.875, interpolation="bicubic"),
        Preprocess(resize=None, crop=300),
    ],
    ids=str,
)
def test_near_pillow(preprocess: Preprocess) -> None:
    photos = [encoded(image) for image in photographs()]
    results = decode_jpegs([waiting(content) for content in photos], preprocess, DEVICE)
    for content, result in zip(photos, results, strict=True):
        assert isinstance(result, torch.Tensor)
        assert result.dtype == torch.uint8
        with Image.open(io.BytesIO(content)) as image:
            expected = preprocess.pixels(image.convert("RGB"))
        difference = (result.cpu().int() - expected.int()).abs().float()
        assert difference.mean() <= LEVELS
        assert difference.quantile(0.99) <= 8 * LEVELS


def test_a_damaged_one_leaves_the_others_alone_and_reads_like_pillow() -> None:
    good = encoded(photographs()[0])
    cut = good[: len(good) // 3]
    jpegs = [waiting(good), waiting(cut), waiting(good)]
    first, damaged, last = decode_jpegs(jpegs, Preprocess(), DEVICE)
    assert isinstance(first, torch.Tensor)
    torch.testing.assert_close(first, last, rtol=0, atol=0)
    with pytest.raises(ImageError) as pillows:
        choose_decoder("pillow").decode(Sample("a", content=cut), "RGB")
    # nvJPEG may decode what is there of a file that is cut; Pillow never does.
    if DEVICE.type == "cpu":
        assert str(damaged) == str(pillows.value)


@pytest.mark.parametrize("name", ["torchcodec", "torchvision"])
def test_either_library_decodes_as_it_is_stored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "torchvision":
        monkeypatch.setitem(sys.modules, "torchcodec", None)
    elif not importlib.util.find_spec("torchcodec"):
        pytest.skip("torchcodec is not installed")
    nvjpeg.library.cache_clear()
    try:
        assert nvjpeg.library()[0].startswith(name)
        image, exif = photographs()[1], Image.Exif()
        exif[0x0112] = 6
        file = io.BytesIO()
        image.save(file, "JPEG", quality=92, exif=exif)
        jpeg = waiting(file.getvalue())
        assert isinstance(jpeg, EncodedJpeg)
        (pixels,) = decode_jpegs([jpeg], Preprocess(resize=None, crop=64), DEVICE)
        with Image.open(io.BytesIO(file.getvalue())) as stored:
            expected = Preprocess(resize=None, crop=64).pixels(stored.convert("RGB"))
        assert (pixels.cpu().int() - expected.int()).abs().float().mean() <= LEVELS
        turned = waiting(file.getvalue(), exif_rotation=True)
        assert isinstance(turned, Image.Image)
        assert turned.size == image.size[::-1]
    finally:
        nvjpeg.library.cache_clear()


def test_images_are_decoded_in_groups_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvjpeg, "MOST_BATCH_PIXELS", 3 * 40 * 30)
    calls = []
    version, decode = nvjpeg.library()

    def counted(contents: list[torch.Tensor], *rest: object) -> list[torch.Tensor]:
        calls.append(len(contents))
        return decode(contents, *rest)

    monkeypatch.setattr(nvjpeg, "library", lambda: (version, counted))
    sizes = [(40, 30)] * 7 + [(400, 300), (40, 30)]
    jpegs = [waiting(jpeg_bytes(photo(*size))) for size in sizes]
    results = decode_jpegs(jpegs, Preprocess(resize=None, crop=32), DEVICE)
    assert calls == [3, 3, 1, 1, 1]
    assert all(isinstance(result, torch.Tensor) for result in results)


def test_a_strip_that_cannot_be_resized_is_an_error() -> None:
    strip = waiting(jpeg_bytes(photo(4000, 1)))
    (result,) = decode_jpegs([strip], Preprocess(), DEVICE)
    assert isinstance(result, ImageError)
    assert "too long and thin" in str(result)


def test_it_needs_a_gpu_and_a_resizing_that_gpus_have(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    photo(40, 30).save(images / "a.jpg")
    encoder = qf.load_encoder(save_checkpoint(tmp_path / "encoder.pth"), device="cpu")
    with pytest.raises(SettingsError, match="decodes on the encoder's GPU, and .* is on cpu"):
        qf.score(images, encoder, tmp_path / "out", decoder="nvjpeg")
    assert not (tmp_path / "out").exists()
    lanczos = encoder.with_preprocess(encoder.preprocess.changed(interpolation="lanczos"))
    with pytest.raises(SettingsError, match=r"bilinear or bicubic, and .* takes lanczos"):
        encode_unit.check_decoder(choose_decoder("nvjpeg"), lanczos, "cuda")


def test_a_run_with_hostile_files_scores_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = hostile_images.save_hostile_folder(tmp_path / "images")
    for index, image in enumerate(photographs()):
        (tmp_path / "images" / f"photo{index}.jpg").write_bytes(encoded(image))
        grey = encoded(image.convert("L"))
        (tmp_path / "images" / f"grey{index}.jpg").write_bytes(grey)
        (tmp_path / "images" / f"grey{index}-cut.jpg").write_bytes(grey[: len(grey) // 3])
    sent = []
    monkeypatch.setattr(
        encoding_lane,
        "decode_jpegs",
        lambda jpegs, *rest: (sent.extend(jpegs), decode_jpegs(jpegs, *rest))[1],
    )
    encoder = qf.load_encoder(save_checkpoint(tmp_path / "encoder.pth"), device=DEVICE)
    colour = Preprocess(mode="L", resize=32, crop=28, mean=(0.5,), std=(0.5,))
    encoder = encoder.with_preprocess(colour)
    if DEVICE.type == "cpu":
        monkeypatch.setattr("qscore_fast.scoring.run_scoring.check_decoder", lambda *_: None)
    tables = {}
    for name in ("pillow", "nvjpeg"):
        run = qf.score(
            tmp_path / "images", encoder, tmp_path / name, decoder=name, eps=0.5, activation_eps=0.5
        )
        scores = run.scores().to_pandas().set_index("sample_id")
        errors = run.errors().to_pandas().set_index("sample_id")
        tables[name] = scores, errors
        assert len(scores) + len(errors) >= len(good | set(bad))
    (pillow, errors), (gpu, gpu_errors) = tables["pillow"], tables["nvjpeg"]
    if DEVICE.type == "cpu":
        assert errors["error"].to_dict() == gpu_errors["error"].to_dict()
    assert len(sent) >= 12  # grey for a grey encoder, the cut ones among them
    common = pillow.index.intersection(gpu.index)
    assert len(common) >= 0.9 * len(pillow)
    difference = (pillow.loc[common, "mean"] - gpu.loc[common, "mean"]).abs()
    assert difference.median() <= 0.02 * pillow["mean"].abs().mean()
