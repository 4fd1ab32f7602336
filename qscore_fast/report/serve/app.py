"""The server's answers: the page, pages of images, one image, its picture."""

# Without annotations as text: FastAPI reads them, and those of a function's own types must be values.
import math
from collections.abc import Iterable
from typing import Annotated, Any

from qscore_fast.errors import ImageError, MissingExtraError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.report.active_features import PartRowsIndex, active_features
from qscore_fast.report.render import finite
from qscore_fast.report.serve.guard import Guard
from qscore_fast.report.serve.picture_cache import PictureCache
from qscore_fast.report.serve.score_index import Query, ScoreIndex, Sort
from qscore_fast.report.shown_images import MOST_FEATURES
from qscore_fast.scoring.store import Store

LONGEST_SEARCH = 500
MOST_IMAGES = 500


def make_app(
    page: str,
    policy: str,
    store: Store,
    features: DiscriminativeFeatures,
    index: ScoreIndex,
    pictures: PictureCache,
    token: str,
    hosts: Iterable[str] = (),
) -> Guard:
    """The application. It reads; nothing that it is sent reaches a path: images go by their row.

    Args:
        page: the HTML. policy: its content security policy.
        token, hosts: see :class:`Guard`.

    Raises:
        MissingExtraError: fastapi is not installed.
    """
    try:
        from fastapi import FastAPI, HTTPException, Path, Response
        from fastapi import Query as Given
    except ImportError:
        raise MissingExtraError("fastapi", "serve") from None
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    places = PartRowsIndex(store)
    number = Annotated[float | None, Given(allow_inf_nan=False)]
    whole = Annotated[int, Path(ge=0, lt=index.num_rows or 1)]

    def show_page() -> Response:
        return Response(
            page, media_type="text/html",
            headers={"content-security-policy": policy, "cache-control": "no-store"},
        )  # fmt: skip

    def images(
        sort: Sort = "score",
        descending: bool = False,
        label: Annotated[int | None, Given(ge=0, lt=max(len(index.labels), 1))] = None,
        least: number = None,
        most: number = None,
        search: Annotated[str, Given(max_length=LONGEST_SEARCH)] = "",
        offset: Annotated[int, Given(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Given(ge=1, le=MOST_IMAGES)] = 60,
    ) -> dict[str, Any]:
        query = Query(sort, descending, label, least, most, search)
        found = index.page(query, offset, limit)
        return {"total": index.count(query), "images": [_entry(index, row) for row in found]}

    def image(row: whole) -> dict[str, Any]:
        found = index.at_row(row)
        if found is None:
            raise HTTPException(404, "there is no such image")
        entries = active_features(store, places, [row], features)[row][:MOST_FEATURES]
        return {**_entry(index, found), "features": [[j, round(v, 5)] for j, v in entries]}

    def picture(row: whole, large: bool = False) -> Response:
        found = index.at_row(row)
        if found is None:
            raise HTTPException(404, "there is no such image")
        try:
            content = pictures.picture(row, found["sample_id"], large)
        except ImageError as error:
            raise HTTPException(404, str(error)) from error
        return Response(
            content, media_type="image/webp", headers={"cache-control": "private, max-age=3600"}
        )

    for path, answer in (
        ("/", show_page), ("/images", images), ("/images/{row}", image), ("/pictures/{row}", picture),
    ):  # fmt: skip
        app.add_api_route(path, answer, methods=["GET", "HEAD"])
    return Guard(app, token, hosts)


def _entry(index: ScoreIndex, row: dict[str, Any]) -> dict[str, Any]:
    """An image as the page's script takes it."""
    q = row["q_score"]
    return {
        "id": row["sample_id"],
        "label": row["name"],
        "row": row["row"],
        "q": q if math.isfinite(q) else None,
        "below": row["place"] / max(index.num_rows, 1),
        "active": row["num_active"],
        "highly": row["num_highly_active"],
        "norm": finite(row["l2"]),
        "size": None,
        "missing": None,
        "correct": None,
        "features": [],
        "picture": f"pictures/{row['row']}",
        "map": None,
    }
