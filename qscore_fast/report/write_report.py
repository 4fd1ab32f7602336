"""write_report: a run as one HTML file that opens anywhere, and its numbers as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qscore_fast.encoders import Encoder
from qscore_fast.errors import SettingsError
from qscore_fast.report.heat_map_pictures import HeatMapPictures
from qscore_fast.report.render import finite, rendered
from qscore_fast.report.report_content import ReportSettings, report_content
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.atomic import made_folder, write_text
from qscore_fast.scoring.store import Store


@dataclass(frozen=True)
class WrittenReport:
    """What was written.

    Attributes:
        html: the page. json: its numbers.
        content: the same numbers.
    """

    html: Path
    json: Path
    content: dict[str, Any]

    def lines(self) -> list[str]:
        """For a terminal."""
        pictures = self.content["pictures"]
        found = [
            f"report      {self.html}",
            f"            {self.html.stat().st_size / 1e6:.1f} MB, {pictures['shown']:,} images"
            + (f", {pictures['heat_maps']:,} with heat maps" if pictures["heat_maps"] else ""),
            f"numbers     {self.json}",
        ]
        if pictures["missing"]:
            reason, count = max(pictures["reasons"].items(), key=lambda item: item[1])
            found.append(
                f"note        {pictures['missing']:,} pictures are missing ({count:,} times: {reason})"
            )
        return found


def write_report(
    run: str | os.PathLike[str] | ScoreRun,
    out: str | os.PathLike[str] | None = None,
    settings: ReportSettings | None = None,
    encoder: Encoder | None = None,
    layer: str | None = None,
) -> WrittenReport:
    """Write the report of a finished run.

    Args:
        run: the run, or its folder.
        out: the HTML file, report.html in the run's folder by default; the numbers lie beside it, under the
            same name with .json.
        settings: what goes in.
        encoder: that of the run, for heat maps; None leaves them out.
        layer: whose activations the heat maps show, see ``heatmaps``; by default the last feature maps.

    Raises:
        MissingExtraError: jinja2 is not installed.
        StoreError: no complete run there, or a file cannot be written.
        SettingsError: a file that was named does not fit the run, the encoder is another one, or has no such
            layer.
        EncoderError: the encoder has no map of the image in it.
    """
    run = run if isinstance(run, ScoreRun) else ScoreRun(run)
    path = run.path / "report.html" if out is None else Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"the report is an HTML file: end {path} in .html")
    drawer = None
    if encoder is not None:
        drawer = HeatMapPictures(Store(run.path), run.features, encoder, layer)
    content, shown = report_content(run, settings or ReportSettings(), drawer)
    page = rendered(content, shown)
    made_folder(path.parent)
    numbers = path.with_suffix(".json")
    write_text(numbers, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")
    write_text(path, page)
    return WrittenReport(path, numbers, content)


def _plain(value: Any) -> Any:
    """The same with null for NaN and infinity, which JSON has not."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
