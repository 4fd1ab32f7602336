"""The wheel: what is in it, and that it works in an environment that has no compiler and no source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
            *("--wheel-dir", folder, ROOT),
        ],
        check=True,
        timeout=600,
    )
    (path,) = folder.glob("*.whl")
    return path


def test_contents(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"qscore_fast"}
    assert "qscore_fast/kernels/triton/q_score.py" in names
    assert "qscore_fast/demo/data/encoder.pth" in names
    assert [name for name in names if name.startswith("qscore_fast/kernels/cpu/_native")]
    assert not [name for name in names if name.endswith((".cc", ".h", ".pyc"))]


def test_works_elsewhere(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env")
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    # torch and the others come from this environment; a path in a .pth file runs no hook of an
    # editable installation.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    code = (
        "import importlib.util, torch, qscore_fast as qf\n"
        "import qscore_fast.kernels\n"
        "print(importlib.util.find_spec('kernels'))\n"
        "print(qf.__file__.startswith(__import__('sys').prefix), qf.backend_info().cpu.split()[0])\n"
        "print(qf.q_score(torch.eye(32)[:1]).item())\n"
        "print(qf.load_encoder('demo').num_features)\n"
    )
    result = subprocess.run(
        [tmp_path / "env" / "bin" / "python", "-c", code],
        cwd=tmp_path,
        env={key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ} | {"PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.stdout.splitlines() == ["None", "True native", "0.96875", "512"], result.stderr
