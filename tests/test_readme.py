"""What the README shows must work, and every figure in it must come from a file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import torch

import qscore_fast as qf
from benchmarks import publish, results
from qscore_fast.cli.parser import build_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


ENCODERS = (ROOT / "docs" / "encoders.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def test_the_loss_module() -> None:
    scope: dict[str, object] = {}
    exec(blocks("python")[0], scope)
    h, loss, features = scope["h"], scope["loss"], scope["D"]
    assert isinstance(h, torch.Tensor)
    assert loss == qf.q_score_loss(h, features)
    assert h.grad is not None
    assert h.grad.abs().sum() > 0


def test_commands_parse() -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    shown = [line for block in blocks("bash", ENCODERS) for line in block.splitlines()]
    for line in shown:
        build_parser().parse_args(shlex.split(line, comments=True)[1:])
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("qscore ")]
    assert {command[1] for command in commands} == {
        "score", "discover", "rescore", "metrics", "probe", "knn", "evaluate", "compress", "heatmap",
        "interpret", "finetune", "report", "serve", "info", "bench", "encoders",
    }  # fmt: skip
    for command in commands:
        build_parser().parse_args(command[1:])


def test_linked_files_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README)
    local = [target for target in targets if "://" not in target]
    assert len(local) >= 5
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_the_figures_are_what_the_results_say() -> None:
    assert "<!-- kernels: begin -->" in README
    for text in (README, (ROOT / "docs" / "performance.md").read_text()):
        assert publish.filled(text, results.newest()) == text
