"""Chart: inline SVG that takes its colours from the page, in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape

LEFT, RIGHT, TOP, BOTTOM = 58, 16, 28, 46


@dataclass
class Chart:
    """A plane with axes, and marks on it. Every text is escaped.

    Attributes:
        title: what a screen reader says of it.
        x_label, y_label: of the axes.
        x_range, y_range: in the units of the data.
        width, height: of the view box.
    """

    title: str
    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    width: int = 640
    height: int = 270
    x_format: Callable[[float], str] | None = None
    y_format: Callable[[float], str] | None = None
    _marks: list[Markup] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.x_range = _widened(self.x_range)
        self.y_range = _widened(self.y_range)

    def x(self, value: float) -> float:
        """A place in the view box."""
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """A place in the view box."""
        low, high = self.y_range
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)

    def bars(
        self, edges: Sequence[float], heights: Sequence[float], titles: Sequence[str], css: str
    ) -> None:
        """One bar between each two edges."""
        base = self.y(max(0.0, self.y_range[0]))
        for left, right, height, title in zip(edges[:-1], edges[1:], heights, titles, strict=True):
            if not height:
                continue
            x, top = self.x(left), self.y(height)
            # A thing that is there must be seen, however small it is beside the largest.
            drawn = max(base - top, 1.0)
            width = max(self.x(right) - x - 0.8, 0.6)
            self._marks.append(
                Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                       "<title>{}</title></rect>").format(
                    css, x, base - drawn, width, drawn, title)
            )  # fmt: skip

    def line(self, x: Sequence[float], y: Sequence[float], css: str, steps: bool = False) -> None:
        """A line through points."""
        self._marks.append(Markup('<path class="{}" d="{}"/>').format(css, self._path(x, y, steps)))

    def area(self, x: Sequence[float], y: Sequence[float], css: str, steps: bool = False) -> None:
        """What lies between a line and zero."""
        if not len(x):
            return
        base = self.y(max(0.0, self.y_range[0]))
        outline = self._path(x, y, steps)
        self._marks.append(
            Markup('<path class="{}" d="{}L{:.1f} {:.1f}L{:.1f} {:.1f}Z"/>').format(
                css, outline, self.x(x[-1]), base, self.x(x[0]), base
            )
        )

    def dots(self, x: Sequence[float], y: Sequence[float], titles: Sequence[str], css: str) -> None:
        """Points with texts that show when they are pointed at."""
        for at, value, title in zip(x, y, titles, strict=True):
            self._marks.append(
                Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>')
                .format(css, self.x(at), self.y(value), title)
            )  # fmt: skip

    def vertical(self, value: float, text: str, css: str = "rule") -> None:
        """A rule across the plane with a text at its top."""
        x = self.x(value)
        anchor = "end" if x > self.width * 0.8 else "start" if x < self.width * 0.2 else "middle"
        self._marks.append(
            Markup('<path class="{}" d="M{:.1f} {}V{}"/><text class="note" x="{:.1f}" y="{}" '
                   'text-anchor="{}">{}</text>').format(
                css, x, TOP, self.height - BOTTOM, x, TOP - 6, anchor, text)
        )  # fmt: skip

    def text(self, x: float, y: float, text: str, anchor: str = "start", css: str = "note") -> None:
        """A text at a place of the data."""
        self._marks.append(
            Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                css, self.x(x), self.y(y), anchor, text
            )
        )

    def svg(self) -> Markup:
        """The whole picture."""
        parts = [
            Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
                self.width, self.height, self.title
            ),
            *self._axes(),
            *self._marks,
            Markup("</svg>"),
        ]
        return Markup("").join(parts)

    def _path(self, x: Sequence[float], y: Sequence[float], steps: bool) -> str:
        places = [(self.x(a), self.y(b)) for a, b in zip(x, y, strict=True)]
        if not places:
            return ""
        words = [f"M{places[0][0]:.1f} {places[0][1]:.1f}"]
        for a, b in places[1:]:
            words.append(f"H{a:.1f}V{b:.1f}" if steps else f"L{a:.1f} {b:.1f}")
        return "".join(words)

    def _axes(self) -> list[Markup]:
        found: list[Markup] = []
        for value in ticks(*self.y_range, 4):
            y = self.y(value)
            found.append(
                Markup('<path class="grid" d="M{} {:.1f}H{}"/>'
                       '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                    LEFT, y, self.width - RIGHT, LEFT - 8, y + 4,
                    (self.y_format or short)(value))
            )  # fmt: skip
        base = self.height - BOTTOM
        for value in ticks(*self.x_range, 6 if self.width > 500 else 4):
            found.append(
                Markup(
                    '<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
                ).format(self.x(value), base + 17, (self.x_format or short)(value))
            )
        found.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(
            LEFT, base, self.width - RIGHT))  # fmt: skip
        found.append(
            Markup('<text class="label" x="{}" y="{}" text-anchor="end">{}</text>').format(
                self.width - RIGHT, self.height - 8, escape(self.x_label)
            )
        )
        found.append(
            Markup('<text class="label" x="{}" y="{}">{}</text>').format(4, 10, self.y_label)
        )
        return found


def ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high``."""
    span = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if span <= power * factor)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def short(value: float) -> str:
    """A number as short as an axis can have it."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g}{unit}"
    return f"{value:.4g}"


def percent(value: float) -> str:
    """A share from 0 to 1 in per cent."""
    return f"{100 * value:.4g}%"


def thinned(length: int, count: int) -> np.ndarray:
    """Indices of ``count`` points at even steps, the first and the last among them."""
    return np.unique(np.linspace(0, max(length - 1, 0), min(length, count)).astype(np.int64))


def _widened(span: tuple[float, float]) -> tuple[float, float]:
    low, high = map(float, span)
    if high > low:
        return low, high
    margin = abs(low) * 0.05 or 0.5
    return low - margin, low + margin
