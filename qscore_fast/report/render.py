"""rendered: the numbers and pictures of a report as one HTML page."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import math
import os
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from qscore_fast.errors import MissingExtraError
from qscore_fast.report.comparison import comparison_chart
from qscore_fast.report.compression_section import compression_chart, styles
from qscore_fast.report.distribution import class_strip, distribution_chart
from qscore_fast.report.failure_section import STYLES, failure_charts
from qscore_fast.report.feature_section import feature_chart
from qscore_fast.report.measure_words import MEASURE_WORDS
from qscore_fast.report.shown_images import ShownImages

MOST_CLASSES = 1000
"""Rows of the table of classes."""


def rendered(
    content: dict[str, Any], shown: ShownImages, served: Sequence[str] | None = None
) -> str:
    """The page. Nothing in it is loaded from elsewhere, and its policy forbids the browser to try.

    Every text is escaped by the template; no name becomes markup, an attribute or a script.

    Args:
        served: of a page that a server answers for, all classes by their code: it asks that server for
            pictures and for pages of images.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        import jinja2
        from jinja2.utils import htmlsafe_json_dumps
    except ImportError:
        raise MissingExtraError("jinja2", "report") from None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("qscore_fast.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    css, js = (_own_text(f"report.{kind}") for kind in ("css", "js"))
    labels = {i["label"] for i in content["images"] if i["label"] is not None}
    class_names = sorted(labels) if served is None else list(served)
    return environment.get_template("report.html.j2").render(
        **content,
        lead=_lead(content),
        how=_how(content["run"]),
        notes=_notes(content),
        sections=_sections(content),
        charts=_charts(content),
        class_rows=_class_rows(content),
        class_names=class_names,
        failure_legend=_failure_legend(content["failure"]),
        compression_legend=_compression_legend(content["compression"]),
        measure_words=MEASURE_WORDS,
        island=htmlsafe_json_dumps(
            {
                "images": _island(content, shown, class_names, served is not None),
                "featureMaps": shown.feature_maps,
                "served": served is not None,
                "total": content["distribution"]["num_scored"],
            }
        ),
        css=Markup(css),
        js=Markup(js),
        served=served is not None,
        policy=_policy(css, js, "img-src data:"),
    )


def served_policy() -> str:
    """The policy of a page that asks its server for images."""
    css, js = (_own_text(f"report.{kind}") for kind in ("css", "js"))
    return _policy(css, js, "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'")


def _policy(css: str, js: str, sources: str) -> str:
    """Its own style and script by their hashes, and what else it may load."""
    return (
        f"default-src 'none'; {sources}; style-src '{_digest(css)}'; script-src '{_digest(js)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _own_text(name: str) -> str:
    """A file of the package. It stands inside an element, which its own end tag alone could leave."""
    return (importlib.resources.files("qscore_fast.report") / "templates" / name).read_text("utf-8")


def _lead(content: dict[str, Any]) -> str:
    found, run = content["distribution"], content["run"]
    encoder = os.path.basename(run["encoder"]["name"]) or "unknown"
    if not found["num_scored"]:
        return f"No image of this run could be scored under {encoder}; the reasons are below."
    middle = found["quantiles"]
    return (
        f"{found['num_scored']:,} image{'s' * (found['num_scored'] != 1)} under the encoder {encoder}. "
        f"Half of them score above {middle['0.5']:.3f}, one in twenty below {middle['0.05']:.3f}."
    )


def _how(run: dict[str, Any]) -> list[tuple[str, str]]:
    encoder, features, source, speed = (
        run[name] for name in ("encoder", "features", "source", "speed")
    )
    system = f" ({encoder['system']})" if encoder["system"] else ""
    rows = [
        ("Encoder", f"{encoder['name']}{system}, {encoder['num_features']:,} features"),
        ("Fingerprint", encoder["fingerprint"][:16]),
        ("Arithmetic", encoder["dtype"]),
        ("Preprocessing", run["preprocess_words"]),
        ("Decoder", str(run["decoder"])),
        ("Images", f"{source['location']} ({source['kind']})"),
        (
            "Features",
            f"active above mean + {features['eps']:g} standard deviations"
            f"{', or below by as much' if features['two_sided'] else ''}; percentiles "
            f"{features['lower']:g} to {features['upper']:g} of {features['num_samples']:,} images",
        ),
    ]
    rates = speed["images_per_second_by_stage"]
    if rates:
        stages = ", ".join(f"{stage} {rate:,.0f}" for stage, rate in rates.items())
        rows.append(("Speed", f"images/s that each stage could do alone: {stages}"))
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    return [*rows, ("Versions", versions), ("Scored", run["written"])]


def _notes(content: dict[str, Any]) -> list[str]:
    run, pictures = content["run"], content["pictures"]
    notes = list(run["notes"])
    notes += [f"{count:,} {what}" for what, count in run["source"]["notes"].items()]
    if pictures["missing"]:
        reason, count = max(pictures["reasons"].items(), key=lambda item: item[1])
        total = pictures["shown"] + pictures["missing"]
        notes.append(
            f"{pictures['missing']:,} of {total:,} pictures are missing ({count:,} times: {reason}). If the "
            "images have moved, --images says where they are now"
        )
    return notes


def _sections(content: dict[str, Any]) -> list[tuple[str, str]]:
    scored, shown = content["distribution"]["num_scored"], bool(content["images"])
    plan = (
        ("overview", "Overview", True),
        ("scores", "Scores", scored),
        ("galleries", "Galleries", shown),
        ("classes", "Classes", content["galleries"]["per_class"]),
        ("features", "Features", content["features"]),
        ("failure", "Failure prediction", content["failure"]),
        ("compression", "Compression", content["compression"]),
        ("measures", "Measures", content["measures"]),
        ("comparison", "Comparison", content["comparison"]),
        ("browse", "Browse", shown),
    )
    return [(name, title) for name, title, there in plan if there]


def _charts(content: dict[str, Any]) -> dict[str, Any]:
    draw = {
        "features": feature_chart,
        "failure": failure_charts,
        "compression": compression_chart,
        "comparison": comparison_chart,
    }
    found: dict[str, Any] = {
        name: chart(content[name]) for name, chart in draw.items() if content[name]
    }
    if content["distribution"]["num_scored"]:
        found["distribution"] = distribution_chart(content["distribution"])
    return found


def _class_rows(content: dict[str, Any]) -> list[tuple[dict[str, Any], Markup]]:
    classes = content["classes"]
    if not classes:
        return []
    low = min(item["q05"] for item in classes)
    high = max(item["q95"] for item in classes)
    return [(item, class_strip(item, low, high)) for item in classes[:MOST_CLASSES]]


def _failure_legend(failure: dict[str, Any] | None) -> list[tuple[str, str]]:
    if failure is None:
        return []
    bounds = {row["name"] for row in failure["scores"] if row.get("uses_labels")}
    return [
        (css, curve["title"] + (" (uses labels)" if curve["name"] in bounds else ""))
        for css, curve in zip(STYLES, failure["curves"], strict=False)
    ] + [("rule", "chance")]


def _compression_legend(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    lines = [(css, name.replace("_", " ")) for name, css in styles(found).items()]
    return [*lines, ("rule", "all features")]


def _island(
    content: dict[str, Any], shown: ShownImages, class_names: list[str], served: bool
) -> list[dict[str, Any]]:
    """What the page's script knows of each image."""
    codes = {name: code for code, name in enumerate(class_names)}
    return [
        {
            "id": entry["sample_id"],
            "label": entry["label"],
            "class": codes.get(entry["label"], -1),
            "row": entry["row"],
            "q": entry["q_score"],
            "below": entry["share_below"],
            "active": entry["num_active"],
            "highly": entry["num_highly_active"],
            "norm": finite(entry["l2"]),
            "size": entry["size"],
            "missing": entry["missing"],
            "correct": entry.get("correct"),
            "features": [[item["feature"], round(item["value"], 5)] for item in entry["features"]],
            "picture": f"pictures/{entry['row']}" if served else shown.pictures.get(place),
            "map": shown.maps.get(place),
        }
        for place, entry in enumerate(content["images"])
    ]


def finite(value: float | None) -> float | None:
    """The value; None for NaN and infinity, which JSON has not."""
    return value if value is not None and math.isfinite(value) else None
