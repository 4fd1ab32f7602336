"""What the command prints: messages, progress, summaries."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qscore_fast.scoring import Progress

LOG_SECONDS = 5.0


def escaped(text: str) -> str:
    """The text on one line: control characters, newlines and stray bytes as escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(text)
    )


def say(text: str) -> None:
    """One line for a person, on stderr, where it cannot mix with results."""
    print(f"qscore: {escaped(text)}", file=sys.stderr, flush=True)


@contextmanager
def warnings_said() -> Iterator[None]:
    """A RuntimeWarning in the block is one line like any other, without Python's line of source."""
    with warnings.catch_warnings():
        elsewhere = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, RuntimeWarning):
                say(f"warning: {message}")
            else:
                elsewhere(message, category, *where, **more)

        warnings.showwarning = show
        yield


def print_result(content: Any, lines: Iterable[str], as_json: bool) -> None:
    """The result on stdout: one JSON value, or lines for a person."""
    if as_json:
        print(json.dumps(content), flush=True)
        return
    for line in lines:
        sys.stdout.write(f"{escaped(line)}\n")
    sys.stdout.flush()


class ProgressPrinter:
    """A bar on a terminal; in a log, a line when work starts and every few seconds after that."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._start = self._last = time.monotonic()
        self._done: int | None = None

    def __call__(self, state: Progress) -> None:
        """Show a state. A run that is complete from the start shows nothing."""
        if state.found == state.total:
            return
        if self._done is None or state.done < self._done:
            self._begin(state)
        self._done = state.done
        if self._bar is not None:
            self._bar.set_postfix_str(f"{state.failed} bad" if state.failed else "", refresh=False)
            self._bar.update(state.done - self._bar.n)
        elif time.monotonic() - self._last >= LOG_SECONDS:
            self._last = time.monotonic()
            say(self._line(state))

    def close(self) -> None:
        """Finish the bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar = self._done = None

    def _begin(self, state: Progress) -> None:
        self.close()
        self._start = self._last = time.monotonic()
        if state.found:
            of = "" if state.total is None else f" of {state.total:,}"
            say(f"{state.found:,}{of} images are in finished parts: going on")
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=state.total, initial=state.done, unit=" images", unit_scale=False,
                dynamic_ncols=True, file=sys.stderr,
            )  # fmt: skip
        else:
            to_do = None if state.total is None else state.total - state.done
            say("scoring what the source holds" if to_do is None else f"{to_do:,} images to do")

    def _line(self, state: Progress) -> str:
        rate = (state.done - state.found) / (time.monotonic() - self._start)
        bad = f", {state.failed:,} bad" if state.failed else ""
        if state.total is None:
            return f"{state.done:,} images{bad}, {rate:,.0f} images/s"
        left = (state.total - state.done) / rate if rate else float("inf")
        return (
            f"{state.done:,} of {state.total:,} images{bad}, {rate:,.0f} images/s, "
            f"{_duration(left)} left"
        )


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """A run's summary for a person."""
    session = summary["session"]
    if not summary["complete"]:
        return [
            *_speed_lines(session),
            f"complete    no: {session['parts_left']:,} parts of other shards are missing; the shard that "
            "ends last writes the results",
        ]
    q = summary["q_score"]
    lines = [f"images      {summary['num_images']:,}, {summary['num_scored']:,} scored"]
    if summary["num_failed"]:
        count = summary["num_failed"]
        lines[0] += f", {count:,} bad image{'s' * (count > 1)} left out, with the reasons in "
        lines[0] += summary["files"]["errors.parquet"]
    for what, count in summary["source_notes"].items():
        if count:
            lines[0] += f"; {count:,} {what}"
    system = f" ({summary['system']})" if summary["system"] else ""
    lines += [
        f"encoder     {summary['encoder']}{system}",
        f"features    {summary['num_discriminative']:,} of {summary['num_features']:,} are "
        f"discriminative at eps = {summary['eps']:g} "
        f"(percentiles {summary['lower']:g} to {summary['upper']:g}"
        + (", two-sided)" if summary["two_sided"] else ")"),
        "q-score     "
        + "   ".join(f"{name} {q[name]:.4f}" for name in ("min", "q05", "median", "q95", "max")),
        f"            {100 * summary['empty_fraction']:.2f} % of the images have no active "
        "discriminative feature: score 0",
    ]
    if session is not None:  # a run that was made now, not one that is only read
        lines += _speed_lines(session)
        lines.append(f"backend     {session['backend']} on {session['device']}{_crew(session)}")
    lines.append(f"scores      {summary['files']['scores.parquet']}")
    lines += [f"note        {note}" for note in summary["notes"]]
    return lines


def _crew(session: dict[str, Any]) -> str:
    encoders, nodes = session["encoders"], session["nodes"]
    if encoders <= 1 and nodes <= 1:
        return ""
    return f", {encoders} encoders on {nodes} node{'s' * (nodes > 1)}"


def _speed_lines(session: dict[str, Any]) -> list[str]:
    if session["images_per_second"] is None:
        return [f"speed       all {session['parts_found']} parts were there: nothing to do"]
    lines = [
        f"speed       {session['images_per_second']:,.0f} images/s, {_duration(session['seconds'])}"
    ]
    if session["images_by_others"]:
        together = session["images_done"] + session["images_by_others"]
        lines[0] += f"; {together / session['seconds']:,.0f} images/s with the other processes"
    rates, bound = session["images_per_second_by_stage"], session["bottleneck"]
    if bound is not None:
        workers = f"{session['workers']} worker{'s' * (session['workers'] > 1)}"
        who = {
            "decode": f"{workers} give {{}} images/s",
            "encode": "the encoder takes {} images/s",
            "write": "the disk takes {} images/s",
        }
        could = {"decode": f"{workers} could give {{}}", "encode": "the encoder could take {}"}
        others = [
            could[stage].format(f"{rates[stage]:,.0f}")
            for stage in could
            if stage != bound and stage in rates
        ]
        found = who[bound].format(f"{rates[bound]:,.0f}")
        lines.append(f"            {bound}-bound: {', '.join([found, *others])}")
    return lines


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "unknown time"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
