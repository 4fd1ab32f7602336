"""Steps: work that is done once, however often the command is given."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qscore_fast.scoring.atomic import write_text

Result = dict[str, Any]


class Steps:
    """Steps in a folder; one that finished with the same settings is read back instead of done again.

    Args:
        folder: of the experiment; made if missing.
        say: hears what is being done.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, settings: Result, work: Callable[[Path], Result]) -> Result:
        """What ``work(folder / name)`` returns: plain values, from now on in ``folder / name.json``.

        A step that was killed is done again from the start, in an empty folder. One whose settings
        differ from those that it was done with is, too.
        """
        wanted = json.loads(json.dumps(settings))
        done = self.recorded(name)
        if done is not None and done["settings"] == wanted:
            self.say(f"{name}: done before")
            return done["result"]
        self.say(f"{name} ...")
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        began = time.perf_counter()
        result = json.loads(json.dumps(work(place)))
        seconds = round(time.perf_counter() - began, 1)
        content = {"settings": wanted, "seconds": seconds, "result": result}
        write_text(self.folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
        self.say(f"{name}: {seconds:,.1f} s")
        return result

    def recorded(self, name: str) -> Result | None:
        """``settings`` and ``result`` of a step that ended; None of another, or of a damaged record."""
        try:
            done = json.loads((self.folder / f"{name}.json").read_text())
            return {key: done[key] for key in ("settings", "result")}
        except (OSError, ValueError, KeyError, TypeError):
            return None
