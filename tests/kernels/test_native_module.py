"""The native module in a process: threads, forks, instruction sets, large offsets, memory."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from qscore_fast.kernels import cpu
from torch import Tensor

import qscore_fast as qf
from qscore_fast import reference


@pytest.fixture(autouse=True)
def native() -> Iterator[None]:
    threads, target = torch.get_num_threads(), cpu.current_target()
    with qf.use_backend("native"):
        yield
    torch.set_num_threads(threads)
    cpu.use_target(target)


def large() -> Tensor:
    """Enough elements that several threads share the work."""
    return torch.randn(3000, 257, generator=torch.Generator().manual_seed(0)).relu()


def everything(h: Tensor) -> list[Tensor]:
    leaf = h.clone().requires_grad_()
    sparse = qf.sparse_activations(leaf, 2.0)
    outputs = [
        qf.q_score(leaf, None, 2.0),
        *qf.row_stats(leaf),
        sparse.value,
        qf.q_score_loss(leaf, None, 2.0, 0.3, 0.2),
    ]
    gradients = [torch.autograd.grad(o.sum(), leaf, retain_graph=True)[0] for o in outputs]
    counts = [
        qf.activation_counts(h, 2.0),
        qf.highly_active(h, 2.0),
        sparse.offsets,
        sparse.feature,
    ]
    return outputs + gradients + counts


@pytest.mark.parametrize("target", cpu.targets())
def test_instruction_sets_agree(target: str) -> None:
    """Every instruction set of this processor finds the same sets and, to rounding, the same numbers."""
    h = large()
    expected = everything(h.double())
    cpu.use_target(target)
    for actual, exact in zip(everything(h), expected, strict=True):
        if actual.dtype.is_floating_point:
            torch.testing.assert_close(actual.double(), exact, rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(actual, exact)


def test_an_unknown_instruction_set_is_refused() -> None:
    assert cpu.targets()[-1] == "baseline"
    with pytest.raises(ValueError, match="'mmx'.*baseline"):
        cpu.use_target("mmx")


def test_rows_do_not_depend_on_the_number_of_threads() -> None:
    """Bitwise, but for sums over rows, whose order follows the threads."""
    h = large()
    results = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        results.append([qf.q_score(h, None, 2.0), *qf.sparse_activations(h, 2.0)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_calls_from_many_python_threads() -> None:
    h = large()
    expected = qf.q_score(h, None, 2.0)
    wrong: list[int] = []

    def call(i: int) -> None:
        for _ in range(20):
            if not torch.equal(qf.q_score(h, None, 2.0), expected):
                wrong.append(i)

    workers = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert not wrong


FORK = """
import os, torch, qscore_fast as qf
h = torch.randn(3000, 257)
expected = qf.q_score(h)  # starts the pool
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(qf.q_score(h), expected) else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_threads_of_its_own() -> None:
    """As in a DataLoader's worker: the parent's threads do not exist there."""
    result = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout == "0\n", result.stderr


def test_offsets_beyond_int32() -> None:
    """Rows that lie 2^31 elements apart, in a mapping of which only the rows are touched."""
    r, stride = 300, 2**30 + 32
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    storage = torch.frombuffer(
        mmap.mmap(-1, 2 * (2 * stride + r), flags=flags), dtype=torch.bfloat16
    )
    far = storage.as_strided((3, r), (stride, 1))
    near = torch.randn(3, r).bfloat16()
    far.copy_(near)
    for a, b in zip(everything(far), everything(near), strict=True):
        assert torch.equal(a, b)


LIBRARIES = """
import re, torch
def runtimes():
    return set(re.findall(r"/\\S*(?:gomp|iomp|libomp)\\S*", open("/proc/self/maps").read()))
before = runtimes()
import qscore_fast as qf
qf.use_backend("native")
qf.q_score(torch.randn(3000, 257))
print(len(before) > 0, runtimes() == before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs Linux's /proc")
def test_no_second_openmp_enters_the_process() -> None:
    result = subprocess.run(
        [sys.executable, "-c", LIBRARIES], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout == "True True\n", result.stdout + result.stderr


MEMORY = """
import resource, torch, qscore_fast as qf
h = torch.randn(20000, 2048)                     # 156 MiB
leaf = h.requires_grad_()
qf.q_score(leaf[:100]).sum().backward()          # everything is loaded
leaf.grad = None
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with torch.no_grad():
    qf.q_score(leaf); qf.row_stats(leaf); qf.activation_counts(leaf); qf.sparse_activations(leaf)
    qf.q_score_loss(leaf)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_no_copy_of_the_matrix_is_made() -> None:
    """The forward needs memory for rows and features, never for rows times features."""
    result = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=120, check=False
    )
    assert float(result.stdout) < 16, result.stdout + result.stderr


def test_reference_equals_native_on_a_long_row() -> None:
    # Drawn so that no element lies within rounding of its row's threshold.
    h = torch.randn(2, 70_001, generator=torch.Generator().manual_seed(0)).relu()
    mean, std = reference.row_stats(h.double())[:2]
    assert ((h - (mean + 3 * std)[:, None]).abs() > 1e-6).all()
    torch.testing.assert_close(
        qf.q_score(h, None, 3.0).double(), reference.q_score(h.double(), None, 3.0)
    )
