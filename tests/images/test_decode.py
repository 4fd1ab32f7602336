"""Decoding agrees with torchvision's loader, and bad files fail with a reason."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path

import hostile_images
import numpy as np
import pytest
from hostile_images import photo
from PIL import Image
from torchvision.datasets.folder import pil_loader

from qscore_fast.errors import ImageError
from qscore_fast.images import decode_image, path_of_sample_id, quiet_pillow


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
    for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF"):
        photo(16, 16).save(tmp_path / "whole", form)
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
