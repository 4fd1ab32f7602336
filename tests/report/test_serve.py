"""``qscore serve`` over real HTTP: who may ask, what is answered, and that nothing else can be reached."""

from __future__ import annotations

import http.client
import io
import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pyarrow.parquet as pq
import pytest
from command import finish, start
from full_report import FullReport
from hostile_names import NAMES
from PIL import Image
from playwright.sync_api import expect

from qscore_fast.cli import main
from qscore_fast.images import path_of_sample_id

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        return urlsplit(self.address).port or 0

    @property
    def token(self) -> str:
        return self.address.partition("token=")[2]

    def ask(
        self, path: str, method: str = "GET", token: str | None = "", **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """One request as it is written here: nothing tidies the path. ``token`` "" sends the right one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host="Host" in headers)
        if token is not None:
            connection.putheader("Authorization", f"Bearer {token or self.token}")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response, body

    def json(self, path: str, **query: Any) -> Any:
        response, body = self.ask(f"{path}?{urlencode(query)}")
        assert response.status == 200, body
        return json.loads(body)


@pytest.fixture(scope="module")
def linked(full: FullReport, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The id of an image in whose place there is now a link to one outside the source."""
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    Image.new("L", (28, 28), 200).save(outside)
    name = next(n for n in full.run.scores()["sample_id"].to_pylist() if n.startswith("coat/"))
    path = full.images / name
    content = path.read_bytes()
    path.unlink()
    path.symlink_to(outside)
    yield name
    path.unlink()
    path.write_bytes(content)


@pytest.fixture(scope="module")
def server(full: FullReport, linked: str) -> Iterator[Server]:
    """On a free port, with everything that a report can have; ends by SIGTERM, cleanly."""
    before = set(full.run.path.rglob("*"))
    process = start("serve", full.run.path, "--port", 0, "--probe", full.probe)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:"), process.communicate()
    yield Server(process, address)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert {p.name for p in set(full.run.path.rglob("*")) - before} <= {".serve-index.duckdb"}


def test_nothing_is_answered_without_the_token(server: Server) -> None:
    for path in ("/", "/images", "/pictures/0", "/images/0", "/nothing", "/?token=wrong"):
        response, body = server.ask(path, token=None)
        assert response.status == 401, path
        assert b"picture" not in body
    for wrong in ("x", server.token[:-1], server.token + "x", server.token.upper(), "é" * 20):
        assert server.ask("/", token=None, Cookie=f"qscore_token={wrong}")[0].status == 401
    assert server.ask("/", token="wrong")[0].status == 401
    assert len(server.token) >= 40


def test_the_token_goes_from_the_address_into_a_cookie(server: Server) -> None:
    response, _ = server.ask(f"/?token={server.token}", token=None)
    assert (response.status, response.headers["location"]) == (303, "/")
    cookie = response.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    page, body = server.ask("/", token=None, Cookie=cookie.split(";")[0])
    assert page.status == 200
    assert server.token.encode() not in body
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "localhost@x"])
def test_another_name_for_the_server_is_refused(server: Server, host: str) -> None:
    response, body = server.ask("/images", Host=host)
    assert response.status in (400, 421)
    assert b"sample" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(server: Server, method: str) -> None:
    assert server.ask("/images/0", method)[0].status == 405


TRICKS = (
    "/../../../../etc/passwd",
    "/pictures/../../../../../etc/passwd",
    "/pictures/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/pictures/..%2f..%2f..%2fetc%2fpasswd",
    "/pictures/%252e%252e%252fetc%252fpasswd",
    "/pictures/..%5c..%5cetc%5cpasswd",
    "/pictures//etc/passwd",
    "/pictures/%2fetc%2fpasswd",
    "/pictures/0/../../run.json",
    "/pictures/0%00.png",
    "/pictures/coat/00000.png",
    "/pictures/%c0%ae%c0%ae/run.json",
    "/pictures/file:///etc/passwd",
    "/run.json",
    "/scores.parquet",
    "/.serve-index.duckdb",
    "/pictures/-1",
    "/pictures/99999999999999999999",
    "/pictures/0x0",
    "/pictures/1.5",
    "/images/-1",
    "/images?sort=sample_id%3B+drop+table+images",
    "/images?search=x&limit=100000",
    "/images?offset=-1",
    "/images?least=nan",
    "/docs",
    "/openapi.json",
)


@pytest.mark.parametrize("path", TRICKS)
def test_no_path_leads_out(server: Server, path: str) -> None:
    response, body = server.ask(path)
    assert response.status in (400, 404, 422), body
    for content in (b"root:", b"fingerprint", b"PAR1", b"DUCK"):
        assert content not in body


def test_search_is_text_and_no_query(server: Server) -> None:
    for words in ("' or 1=1 --", "%", "_%_%_", '"; drop table images; --', "\\", "\u202e"):
        found = server.json("/images", search=words)
        assert found["total"] == sum(words.lower() in name.lower() for name in _ids(server)), words
    assert server.json("/images")["total"] > 100


def test_a_link_out_of_the_source_is_not_followed(server: Server, linked: str) -> None:
    (image,) = server.json("/images", search=linked)["images"]
    response, body = server.ask(f"/{image['picture']}")
    assert response.status == 404
    assert b"symbolic link" in body


def test_pictures_are_the_source_to_the_bit(server: Server, full: FullReport, linked: str) -> None:
    for image in server.json("/images", sort="name", limit=20)["images"]:
        if image["id"] == linked:
            continue
        response, body = server.ask(f"/{image['picture']}")
        assert response.headers["content-type"] == "image/webp"
        with (
            Image.open(io.BytesIO(body)) as served,
            Image.open(full.images / path_of_sample_id(image["id"]).decode()) as source,
        ):
            assert np.array_equal(np.asarray(served.convert("L")), np.asarray(source))


KEYS = {"score": "q_score", "name": "sample_id", "active": "num_active", "norm": "l2"}


@pytest.mark.parametrize("sort", KEYS)
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("search", ["", "COAT/", "0"])
def test_pages_are_the_table_sorted_and_filtered(
    server: Server, full: FullReport, sort: str, descending: bool, search: str
) -> None:
    table = pq.read_table(full.run.path / "scores.parquet").to_pylist()
    for row, item in enumerate(table):
        item["row"] = row
    labels = sorted({item["label"] for item in table})
    by_score = sorted(table, key=lambda item: (item["q_score"], item["row"]))
    for label in (None, labels.index("coat"), labels.index("bag")):
        for least, most in ((None, None), (0.15, 0.25)):
            # Equal ones by ascending score, and backwards where the order is descending.
            expected = [
                item
                for item in sorted(by_score, key=lambda item: _key(item[KEYS[sort]]))
                if search.lower() in item["sample_id"].lower()
                and (label is None or item["label"] == labels[label])
                and (least is None or least <= item["q_score"])
                and (most is None or item["q_score"] <= most)
            ]
            if descending:
                expected.reverse()
            query = {"sort": sort, "descending": descending, "search": search}
            query |= {"label": label} if label is not None else {}
            query |= {"least": least, "most": most} if least is not None else {}
            found: list[dict[str, Any]] = []
            for offset in range(0, len(expected) + 1, 41):
                page = server.json("/images", **query, offset=offset, limit=41)
                assert page["total"] == len(expected)
                found += page["images"]
            assert [item["id"] for item in found] == [item["sample_id"] for item in expected]
            assert [item["q"] for item in found] == [item["q_score"] for item in expected]
            assert [item["label"] for item in found] == [item["label"] for item in expected]


def test_one_image_has_the_features_of_the_report(server: Server, full: FullReport) -> None:
    for entry in full.written.content["images"][:5]:
        found = server.json(f"/images/{entry['row']}")
        assert found["id"] == entry["sample_id"]
        assert [j for j, _ in found["features"]] == [f["feature"] for f in entry["features"]]
        if entry["q_score"] > 0:  # others share their score
            assert found["below"] == pytest.approx(entry["share_below"], abs=1e-9)


def test_the_page_in_the_browser(browser: Browser, server: Server, full: FullReport) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(10_000)
    said: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.address)
    assert page.url == f"http://127.0.0.1:{server.port}/"
    total = len(full.run.scores())
    count = page.locator("#count")
    expect(count).to_have_text(f"{total} of {total} images")
    page.fill("[name=search]", "<script>window")
    expect(count).to_have_text(f"{len(NAMES)} of {total} images")
    names = page.locator("#found .id")
    assert set(names.evaluate_all("all => all.map(i => i.title)")) == set(NAMES)
    page.locator("#found .card").first.click()
    expect(page.locator("[data-part=id]")).to_have_text(names.first.get_attribute("title") or "")
    page.keyboard.press("Escape")
    page.fill("[name=search]", "")
    page.select_option("[name=sort]", "score-down")
    lowest_first = full.run.scores().sort_by("q_score")["sample_id"].to_pylist()
    expect(names.first).to_have_attribute("title", lowest_first[-1])
    assert page.evaluate("window.pwned") is None
    assert said == []
    assert {f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" for url in asked} <= {
        f"http://127.0.0.1:{server.port}", "data://",
    }  # fmt: skip
    page.close()


def test_a_port_that_is_taken_and_a_short_token(
    server: Server, full: FullReport, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(full.run.path), "--port", str(server.port)]) == 2
    assert f"port {server.port}" in capsys.readouterr().err
    assert main(["serve", str(full.run.path), "--port", "0", "--token", "short"]) == 2
    assert "16 characters" in capsys.readouterr().err
    assert main(["serve", str(full.images), "--port", "0"]) == 2
    assert "no run of qscore" in capsys.readouterr().err


def _ids(server: Server) -> list[str]:
    return [item["id"] for item in server.json("/images", limit=500)["images"]]


def _key(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value
