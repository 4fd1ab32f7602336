"""Class folders and file names that would be markup, script or attributes if a page forgot to escape them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from qscore_fast.demo.fashion_mnist import read_idx

# Two parts of a path make one closed script element.
SCRIPT = "<script>window.pwned=1</script>.png"
NAMES = (
    SCRIPT,
    '<script>window.pwned=1</"><img src=x onerror=window.pwned=1>.png',
    "<script>window.pwned=1</' autofocus onfocus='window.pwned=1.png",
    "<script>window.pwned=1</{{ 7 * 7 }}{% raw %}.png",
    "<script>window.pwned=1</&lt;b&gt; &amp; ]]>.png",
    "<script>window.pwned=1</\u202egnp.exe.png",
)
LABEL = "<script>window.pwned=1<"


def save_hostile_images(folder: Path) -> Path:
    """One image under each of the names."""
    images = read_idx("score", "images-idx3")[1000:]
    for name, image in zip(NAMES, images, strict=False):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder
