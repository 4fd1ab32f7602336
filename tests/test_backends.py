"""Which backend runs: by device, by name, and what happens where one is missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import qscore_fast as qf


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {
        k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "QSCORE_FAST_BACKEND")
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_cpu_runs_native_code() -> None:
    info = qf.backend_info()
    assert info.requested == "auto"
    assert info.cpu.startswith("native (")
    assert info.threads == torch.get_num_threads()
    assert "native" in str(info)


def test_a_name_is_undone_after_the_block() -> None:
    with qf.use_backend("reference"):
        assert qf.backend_info().cpu == "reference"
        with qf.use_backend("triton"):
            assert qf.backend_info().cpu == "triton (interpreted)"
        assert qf.backend_info().requested == "reference"
    assert qf.backend_info().requested == "auto"
    with pytest.raises(ValueError, match=r"'cuda'.*auto, native, triton, reference"):
        qf.use_backend("cuda")


def test_a_named_backend_never_falls_back() -> None:
    """Triton for a CPU tensor without the interpreter is an error, not the native code."""
    result = run(
        "import torch, qscore_fast as qf\n"
        "qf.use_backend('triton')\n"
        "print(qf.backend_info().cpu)\n"
        "qf.q_score(torch.zeros(2, 3))"
    )
    assert result.stdout == "none\n"
    assert "RuntimeError: backend 'triton' has no kernels for a tensor on cpu" in result.stderr


def test_the_environment_names_a_backend() -> None:
    code = "import qscore_fast as qf; print(qf.backend_info().cpu)"
    assert run(code, QSCORE_FAST_BACKEND="reference").stdout == "reference\n"
    assert (
        "QSCORE_FAST_BACKEND names the backend 'gpu'" in run(code, QSCORE_FAST_BACKEND="gpu").stderr
    )


BLOCKED = """
import sys
sys.modules["qscore_fast.kernels.cpu._native"] = None
import torch, qscore_fast as qf
"""


def test_without_the_native_module_the_reference_runs() -> None:
    """Auto falls back, says so, and computes the same; native by name is refused."""
    result = run(
        BLOCKED + "info = qf.backend_info()\n"
        "print(info.cpu, '|', info.cpu_reason)\n"
        "h = torch.eye(32)[:1].requires_grad_()\n"
        "q = qf.q_score(h); q.sum().backward()\n"
        "print(q.item(), h.grad.isfinite().all().item())\n"
        "print(torch.compile(qf.q_score, fullgraph=True, backend='eager')(h).item())\n"
        "qf.use_backend('native')\n"
        "qf.q_score(h)"
    )
    first, second, third = result.stdout.splitlines()
    assert first.startswith("reference | the native module is not built")
    assert second == "0.96875 True"
    assert third == "0.96875"
    assert "RuntimeError: backend 'native' cannot run" in result.stderr


def test_without_triton_the_cpu_still_works() -> None:
    result = run(
        "import sys; sys.modules['triton'] = None\n"
        "import torch, qscore_fast as qf\n"
        "print(qf.q_score(torch.eye(32)[:1]).item())"
    )
    assert result.stdout == "0.96875\n", result.stderr


def test_importing_the_kernels_pulls_in_no_pipeline() -> None:
    result = run(
        "import sys, qscore_fast as qf\n"
        "print([m for m in ('pyarrow', 'PIL', 'torchvision', 'matplotlib', 'triton', 'kernels')"
        " if m in sys.modules])\n"
        "print(qf.score.__name__, 'pyarrow' in sys.modules)"
    )
    assert result.stdout == "[]\nscore True\n", result.stdout + result.stderr


def test_a_loss_or_a_finished_run_imports_no_compiler() -> None:
    """torch._dynamo takes two seconds; torchvision imports it as well."""
    result = run(
        "import sys, torch, qscore_fast as qf\n"
        "qf.QScoreLoss()(torch.randn(4, 8))\n"
        "qf.rescore, qf.discover, qf.ScoreRun\n"
        "from qscore_fast.evaluation import compression, discovery, failure, measures, probes\n"
        "print([m for m in ('torch._dynamo', 'torchvision') if m in sys.modules])\n"
    )
    assert result.stdout == "[]\n", result.stdout + result.stderr
