"""Decoding agrees with torchvision's loader, and bad files fail with a reason."""

from __future__ import annotations

import errno
import io
import os
import signal
import struct
import warnings
from pathlib import Path

import hostile_images
import numpy as np
import pytest
from hostile_images import photo
from PIL import Image
from torchvision.datasets.folder import pil_loader

from qscore_fast.errors import ImageError, UnavailableError
from qscore_fast.images import (
    Sample,
    choose_decoder,
    decode,
    decode_image,
    path_of_sample_id,
    quiet_pillow,
)

TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str], dict[str, str]]:
    root = tmp_path_factory.mktemp("hostile")
    good, bad = hostile_images.save_hostile_folder(root)
    return root, good, bad


def test_good_files_decode_as_in_torchvision(
    hostile: tuple[Path, set[str], dict[str, str]],
) -> None:
    root, good, _ = hostile
    compared = 0
    for sample_id in sorted(good - {"things/grey16.png"}):
        path = os.path.join(os.fsencode(root), path_of_sample_id(sample_id))
        with quiet_pillow():
            image = decode_image(path)
            assert image.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(image), np.asarray(pil_loader(path)))
            with Image.open(path) as opened:
                grey = np.asarray(opened.convert("L"))
            np.testing.assert_array_equal(np.asarray(decode_image(path, "L")), grey)
        compared += 1
    assert compared == 11


def test_bad_files_give_a_reason_on_one_line(
    hostile: tuple[Path, set[str], dict[str, str]],
) -> None:
    root, _, bad = hostile
    for sample_id, reason in bad.items():
        if reason == "too long and thin":  # decodes; fails when it is resized
            continue
        with pytest.raises(ImageError, match=reason) as raised:
            decode_image(root / sample_id)
        assert raised.value.stage == ("read" if reason == "cannot be opened" else "decode")
        assert "\n" not in str(raised.value)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    def too_late(*_: object) -> None:
        raise TimeoutError

    os.mkfifo(tmp_path / "pipe.jpg")
    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(20)
    try:
        with pytest.raises(ImageError, match="not a regular file"):
            decode_image(tmp_path / "pipe.jpg")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, mode: str) -> None:
    levels = hostile_images.grey16(tmp_path / "grey.png")
    pixels = np.asarray(decode_image(tmp_path / "grey.png", mode))
    expected = np.rint(levels / 257).astype(np.uint8)
    if mode == "RGB":
        expected = np.repeat(expected[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(pixels, expected)


def test_the_pixel_limit_is_checked_from_the_header(tmp_path: Path) -> None:
    photo(100, 50).save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png", max_pixels=5000).size == (100, 50)
    with pytest.raises(ImageError, match="100 x 50 pixels is above the limit of 4,999"):
        decode_image(tmp_path / "a.png", max_pixels=4999)


def test_pillow_stays_as_the_user_had_it(tmp_path: Path) -> None:
    hostile_images.png_bomb(tmp_path / "large.png", 10_000)  # in the range where Pillow warns
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught, quiet_pillow():
        assert decode_image(tmp_path / "large.png", "L").size == (10_000, 10_000)
    assert not caught
    assert (limit, filters) == (Image.MAX_IMAGE_PIXELS, list(warnings.filters))


def test_a_flipped_byte_is_an_error_or_an_image_never_a_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    outcomes = set()
    forms = [(form, {}) for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF")]
    forms += [("TIFF", {"compression": compression}) for compression in TIFF_COMPRESSIONS]
    for form, settings in forms:
        photo(16, 16).save(tmp_path / "whole", form, **settings)
        whole = (tmp_path / "whole").read_bytes()
        for _ in range(60):
            content = bytearray(whole)
            for place in rng.integers(0, len(content), 3):
                content[place] = rng.integers(0, 256)
            path = tmp_path / "damaged.jpg"
            path.write_bytes(content[: rng.integers(len(content) // 2, len(content) + 1)])
            try:
                with quiet_pillow():
                    decode_image(path, max_pixels=10**6)
                outcomes.add("image")
            except ImageError:
                outcomes.add("error")
    assert outcomes == {"image", "error"}


@pytest.mark.parametrize(
    ("compression", "mode"),
    [
        (compression, mode)
        for compression in TIFF_COMPRESSIONS
        for mode in ("RGB", "L", "CMYK", "P", "1", "RGBA")
        if compression != "jpeg" or mode in ("RGB", "L", "CMYK")
    ],
)
def test_tiff_is_what_torchvision_reads(tmp_path: Path, compression: str, mode: str) -> None:
    path = tmp_path / "a.tif"
    pages = [photo(mode="RGB", seed=seed).convert(mode) for seed in range(3)]
    pages[0].save(path, compression=compression, save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(np.asarray(decode_image(path)), np.asarray(pil_loader(str(path))))
    first = np.asarray(pages[0].convert("RGB"), np.int64)
    assert np.abs(np.asarray(decode_image(path), np.int64) - first).mean() < (
        8 if compression == "jpeg" else 1e-9
    )


def test_a_tiff_of_16_bit_is_scaled_and_one_of_floats_refused(tmp_path: Path) -> None:
    levels = hostile_images.grey16(tmp_path / "grey.png")
    for order, start in (("<u2", b"II"), (">u2", b"MM")):
        Image.fromarray(levels.astype(order)).save(tmp_path / "grey.tif")
        assert (tmp_path / "grey.tif").read_bytes()[:2] == start
        pixels = np.asarray(decode_image(tmp_path / "grey.tif", "L"))
        np.testing.assert_array_equal(pixels, np.rint(levels / 257).astype(np.uint8))
    Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)).save(
        tmp_path / "float.tif"
    )
    with pytest.raises(ImageError, match="floating-point numbers of no known range"):
        decode_image(tmp_path / "float.tif")


@pytest.mark.parametrize("exif_rotation", [False, True])
def test_a_tiff_is_turned_once_as_pillow_does(tmp_path: Path, exif_rotation: bool) -> None:
    upright = photo(40, 30)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.tif", tiffinfo={274: 6})
    decoder = choose_decoder("pillow", exif_rotation=exif_rotation)
    found = decoder.decode(Sample("a", path=os.fsencode(tmp_path / "a.tif")), "RGB")
    np.testing.assert_array_equal(np.asarray(found), np.asarray(upright))


@pytest.mark.parametrize("compression", TIFF_COMPRESSIONS)
def test_a_tiff_that_is_cut_off_is_an_error(tmp_path: Path, compression: str) -> None:
    photo(200, 200).save(tmp_path / "a.tif", compression=compression)
    whole = (tmp_path / "a.tif").read_bytes()
    first = int.from_bytes(whole[4:8], "little")
    cut = whole[: len(whole) // 2] if first < len(whole) // 2 else whole[: first + 30]
    (tmp_path / "a.tif").write_bytes(cut)
    with pytest.raises(ImageError, match="damaged"), quiet_pillow():
        decode_image(tmp_path / "a.tif")


def tiled_tiff(side: int, tile: int) -> bytes:
    """The header of a grey image of side x side pixels in LZW-packed tiles of tile x tile."""
    tags = {
        256: side,
        257: side,
        258: 8,
        259: 5,
        262: 1,
        277: 1,
        322: tile,
        323: tile,
        324: 8,
        325: 8,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def test_limits_of_a_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    photo(100, 50).save(path, compression="tiff_lzw")
    with pytest.raises(ImageError, match="100 x 50 pixels is above the limit of 4,999"):
        decode_image(path, max_pixels=4999)
    # A tile is unpacked whole, however little of it the image shows.
    path.write_bytes(tiled_tiff(16, 30_000))
    with pytest.raises(ImageError, match="30000 x 30000 pixels is above the limit"):
        decode_image(path)
    monkeypatch.setattr(decode, "MAX_IMAGE_BYTES", 1000)
    photo(100, 50).save(path, compression="raw")
    with pytest.raises(ImageError, match="a TIFF above the limit of 1,000 bytes"):
        decode_image(path)


def test_a_disk_that_fails_within_a_tiff_is_no_damage(tmp_path: Path) -> None:
    photo(200, 200).save(tmp_path / "a.tif", compression="tiff_lzw")

    class Failing(io.FileIO):
        def readinto(self, buffer: object) -> int:
            if self.tell() > 1000:
                raise OSError(errno.EIO, "Input/output error")
            return super().readinto(memoryview(buffer)[:1001]) or 0  # type: ignore[arg-type]

    with (
        io.BufferedReader(Failing(tmp_path / "a.tif")) as file,
        pytest.raises(UnavailableError, match="Input/output error"),
    ):
        decode.decode_file(file, "RGB", 10**6)
