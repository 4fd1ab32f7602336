"""The page in a real browser: all of it is there, does what it says, and asks nobody for anything."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from full_report import FullReport
from hostile_names import LABEL, NAMES, SCRIPT
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

SECTIONS = {
    "overview": "What was run",
    "scores": "Distribution of scores",
    "galleries": "Lowest, typical, highest",
    "classes": "Lowest of each class",
    "features": "Discriminative features",
    "failure": "Failure prediction",
    "compression": "Compression",
    "measures": "The representation as a whole",
    "comparison": "Against",
    "browse": "Browse",
}


@pytest.fixture(scope="module")
def page(
    browser: Browser, full: FullReport, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """The report from disk, alone in a folder; what must not happen is looked for at the end."""
    alone = tmp_path_factory.mktemp("alone") / "report.html"
    shutil.copy(full.written.html, alone)
    opened = browser.new_page(viewport={"width": 1440, "height": 900})
    said: list[str] = []
    asked: list[str] = []
    opened.set_default_timeout(10_000)
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(alone.as_uri())
    yield opened
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {alone.as_uri()}
    assert opened.evaluate("window.pwned") is None
    opened.close()


def cards(page: Page) -> Locator:
    return page.locator("#found .card")


def found(page: Page) -> list[tuple[float, str]]:
    """Score and id of the cards that the filters leave, all of them."""
    while page.locator("#more").is_visible():
        page.click("#more")
    texts = cards(page).evaluate_all(
        "cards => cards.map(c => [c.querySelector('.score').firstChild.textContent, "
        "c.querySelector('.id').title])"
    )
    return [(float(score), name) for score, name in texts]


def shown(full: FullReport) -> list[dict[str, Any]]:
    return full.written.content["images"]


def test_every_section_is_there_and_filled(page: Page, full: FullReport) -> None:
    headings = {
        section: page.locator(f"#{section} h2").inner_text().split("\n")[0] for section in SECTIONS
    }
    assert all(headings[name].startswith(title) for name, title in SECTIONS.items())
    assert page.locator("nav a").evaluate_all("all => all.map(a => a.hash.slice(1))") == list(
        SECTIONS
    )
    run = full.written.content["run"]
    overview = page.locator("#overview").inner_text()
    for text in ("pillow", run["encoder"]["fingerprint"][:16], "torch", "grey, resize 28"):
        assert text in overview
    assert "not an image of a known format" in overview
    for section, least in (("scores", 1), ("features", 1), ("failure", 3), ("compression", 1),
                           ("comparison", 1)):  # fmt: skip
        charts = page.locator(f"#{section} svg.chart")
        assert charts.count() == least
        assert all(
            charts.evaluate_all("all => all.map(c => c.querySelectorAll('path').length > 3)")
        )
        assert all(
            charts.evaluate_all("all => all.map(c => c.getAttribute('aria-label').length > 20)")
        )
    assert page.locator("#failure tbody tr").count() == len(
        full.written.content["failure"]["scores"]
    )
    assert page.locator("#failure tr.main th").inner_text().startswith("Q-Score")
    assert page.locator("#measures tbody tr").count() >= 15
    assert page.locator("#scores tbody tr").count() == len(full.written.content["classes"])
    assert page.locator("#features .feature").count() == len(
        full.written.content["features"]["top"]
    )
    for gallery in ("lowest", "typical", "highest"):
        own = page.locator(f'#galleries [aria-label="{gallery}"] .card')
        assert own.count() == len(full.written.content["galleries"][gallery])


def test_every_picture_is_drawn_and_described(page: Page) -> None:
    pictures = page.locator(".card .frame img:not(.map)").evaluate_all(
        "async all => { await Promise.all(all.map(i => i.decode())); "
        "return all.map(i => [i.naturalWidth, i.alt]) }"
    )
    assert len(pictures) > 150
    assert all(width > 0 and re.search(r"score \d", text) for width, text in pictures)


def test_the_browse_section_sorts(page: Page, full: FullReport) -> None:
    rows = found(page)
    assert len(rows) == len(shown(full))
    assert [score for score, _ in rows] == sorted(score for score, _ in rows)
    page.select_option("[name=sort]", "score-down")
    assert [score for score, _ in found(page)] == sorted((s for s, _ in rows), reverse=True)
    page.select_option("[name=sort]", "name")
    names = [name for _, name in found(page)]
    assert names == sorted(names, key=lambda name: name.encode("utf-16-be"))
    page.click("#tools [type=reset]")
    expect(page.locator("[name=sort]")).to_have_value("score-up")
    assert found(page) == rows


def test_the_browse_section_filters(page: Page, full: FullReport) -> None:
    images = shown(full)
    page.fill("[name=search]", "BAG/0")
    expected = {i["sample_id"] for i in images if "bag/0" in i["sample_id"]}
    assert {name for _, name in found(page)} == expected
    assert page.locator("#count").inner_text() == f"{len(expected)} of {len(images)} images"
    page.fill("[name=search]", "")
    page.select_option("[name=label]", label="coat")
    assert {name for _, name in found(page)} == {
        i["sample_id"] for i in images if i["label"] == "coat"
    }
    page.select_option("[name=label]", "")
    low, high = 0.2, 0.3
    page.fill("[name=least]", str(low))
    page.fill("[name=most]", str(high))
    expected = {i["sample_id"] for i in images if low <= i["q_score"] <= high}
    assert 0 < len(expected) < len(images)
    assert {name for _, name in found(page)} == expected
    page.select_option("[name=outcome]", "wrong")
    assert {name for _, name in found(page)} == {
        i["sample_id"] for i in images if i["correct"] is False and low <= i["q_score"] <= high
    }
    page.fill("[name=search]", "no such file")
    assert found(page) == []
    page.click("#tools [type=reset]")
    expect(page.locator("[name=search]")).to_have_value("")


def test_an_image_is_enlarged_and_its_id_copied_by_keyboard(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    own = page.locator("#galleries .card")
    own.nth(1).focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#viewer")
    assert dialog.is_visible()
    name = own.nth(1).locator(".id").get_attribute("title")
    assert page.locator("[data-part=id]").inner_text() == name
    assert page.locator("[data-part=frame] img").first.bounding_box()["width"] > 300  # type: ignore[index]
    page.keyboard.press("ArrowRight")
    assert page.locator("[data-part=id]").inner_text() == own.nth(2).locator(".id").get_attribute(
        "title"
    )
    page.keyboard.press("ArrowLeft")
    page.locator("[data-part=copy]").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[data-part=copied]")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == name
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert own.nth(1).evaluate("card => card === document.activeElement")


def test_heat_maps_show_on_hover_focus_and_by_the_button(page: Page) -> None:
    card = page.locator("#galleries .card:has(.map)").first

    def opacity() -> float:
        card.evaluate("c => Promise.all(c.getAnimations({subtree: true}).map(a => a.finished))")
        return float(card.locator(".map").evaluate("map => getComputedStyle(map).opacity"))

    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    assert opacity() == 0
    card.hover()
    assert opacity() == 1
    page.mouse.move(0, 0)
    assert opacity() == 0
    page.click("#maps")
    page.mouse.move(0, 0)
    assert opacity() == 1
    page.click("#maps")
    feature = page.locator("#features .gallery").first
    own = feature.locator(".map").first.get_attribute("src")
    place = feature.locator(".card").first.get_attribute("data-image")
    found(page)
    elsewhere = page.locator(f'#found [data-image="{place}"] .map').get_attribute("src")
    assert own != elsewhere  # of the feature alone, and of all the image's own


def test_hostile_names_stay_text(page: Page, full: FullReport) -> None:
    assert {i["sample_id"] for i in shown(full)} >= set(NAMES)
    page.fill("[name=search]", "<script>window.pwned")
    assert {name for _, name in found(page)} == set(NAMES)
    assert page.locator("#found .id", has_text="{{ 7 * 7 }}{% raw %}").count() == 1
    page.click("#tools [type=reset]")
    expect(page.locator("[name=search]")).to_have_value("")
    assert page.locator("script").count() == 2  # the images' data and the page's own
    assert page.locator("img[src=x], [onerror], [onfocus], [autofocus]").count() == 0
    assert page.locator("#scores tbody th", has_text=LABEL).count() == 1
    assert page.locator("select[name=label] option", has_text=LABEL).count() == 1
    source = full.written.html.read_text()
    assert SCRIPT not in source
    assert page.locator("#overview td bdi", has_text="not an image").count() == 1


@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_at_every_width_in_both_schemes(page: Page, width: int, scheme: Any) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert contrasts(page) == []
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1440, "height": 900})


def contrasts(page: Page) -> list[Any]:
    """The texts whose contrast with what lies under them is below AA (4.5, large ones 3)."""
    return page.evaluate(
        """() => {
      const parse = (text) => text.match(/[\\d.]+/g).map(Number);
      const light = ([r, g, b]) => [r, g, b].map((c) => {
        c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
      }).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
      const under = (element) => {
        for (let at = element; at; at = at.parentElement) {
          const found = parse(getComputedStyle(at).backgroundColor);
          if (found.length === 3 || found[3] > 0) return found;
        }
        return [255, 255, 255];
      };
      const bad = new Map();
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const element = node.parentElement;
        if (!node.textContent.trim() || !element.getClientRects().length) continue;
        if (element.closest("script, style, title, select, .visually-hidden")) continue;
        const style = getComputedStyle(element);
        const ink = element instanceof SVGElement ? style.fill : style.color;
        const [a, b] = [light(parse(ink)), light(under(element))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const large = parseFloat(style.fontSize) >= 24;
        if (ratio < (large ? 3 : 4.5)) bad.set(element.className + element.tagName, ratio);
      }
      return [...bad];
    }"""
    )


def test_the_json_file_holds_the_numbers_of_the_page(page: Page, full: FullReport) -> None:
    content = json.loads(full.written.json.read_text())
    assert content["format"] == "qscore-fast.report"
    text = page.locator("#overview .tiles").inner_text()
    assert f"{content['distribution']['quantiles']['0.5']:.4f}" in text
    assert f"{content['distribution']['mean']:.4f}" in text
    table = page.locator("#failure tr.main td").all_inner_texts()
    estimates = next(s for s in content["failure"]["scores"] if s["name"] == "q_score")["estimates"]
    assert table[0].startswith(f"{estimates['auroc']['value']:.4f}")
    assert (
        f"{content['comparison']['mean_change']:+.4f}" in page.locator("#comparison").inner_text()
    )
