"""Two views of a report in one picture: the scores in light, the features with their heat maps in dark.

    qscore demo --out demo
    python examples/picture_of_report.py demo/report.html docs/images/report.png

Needs Playwright and a Chromium (make browser).
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT, GAP = 1200, 1000, 16
VIEWS = (("light", "#scores", False), ("dark", "#features h3", True))


def main(report: Path, picture: Path) -> None:
    """Open the report, look at both places, save them side by side."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    shots = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for scheme, place, with_maps in VIEWS:
            page = browser.new_page(
                viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme, reduced_motion="reduce"
            )  # fmt: skip
            page.goto(report.resolve().as_uri())
            if with_maps:
                page.click("#maps")
            page.locator(place).first.evaluate("element => element.scrollIntoView()")
            page.mouse.move(0, HEIGHT - 1)
            page.wait_for_timeout(500)  # the lazy pictures of what has come into view
            shots.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        browser.close()
    both = Image.new("RGB", (2 * WIDTH + GAP, HEIGHT), "white")
    for number, shot in enumerate(shots):
        both.paste(shot, (number * (WIDTH + GAP), 0))
    both.quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
