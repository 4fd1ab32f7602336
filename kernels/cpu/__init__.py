"""The native CPU kernels: allocate the outputs, pass addresses to the C++ core.

Every function takes ``h`` as (N, r) with unit stride inside a row and any row stride, float32, float16,
bfloat16 or float64; sums and statistics are float32 (float64 for float64). With ``two_sided`` L holds the
entries more than eps standard deviations from the mean on either side, and ``saved`` has five rows instead
of three, which tell a backward so. ``score_maps`` takes feature maps (N, r, positions) instead of rows.
Threads follow ``torch.get_num_threads()``. Importing this package fails with ImportError where the core was
not built.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from . import _native, stored_entries

_DTYPE_CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}
_COMBINATIONS = {"sum": 0, "mean": 1, "max": 2}
# The metrics of failure prediction that ``resampled_metrics`` knows; some take a parameter.
FAILURE_METRICS = {
    "auroc": 0,
    "auprc_success": 1,
    "auprc_error": 2,
    "fpr_at_tpr": 3,
    "aurc": 4,
    "e_aurc": 5,
    "augrc": 6,
    "selective_accuracy": 7,
    "coverage_at_risk": 8,
}

targets = _native.targets
current_target = _native.current_target
use_target = _native.use_target

StoredRows = stored_entries.StoredRows
score_entries = stored_entries.score_entries
count_entries = stored_entries.count_entries
fill_levels = stored_entries.fill_levels


def _accumulator(h: Tensor) -> torch.dtype:
    return torch.float64 if h.dtype == torch.float64 else torch.float32


def _matrix(h: Tensor) -> tuple[int, int, int, int, int, int]:
    """dtype code, threads, address, rows, features, row stride: how every native call begins."""
    rows, features = h.shape
    threads = torch.get_num_threads()
    return _DTYPE_CODES[h.dtype], threads, h.data_ptr(), rows, features, h.stride(0)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _empty(h: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=_accumulator(h))


def _empty_saved(h: Tensor, two_sided: bool) -> Tensor:
    """Upper threshold, |L & D|, l2; two-sided also lower threshold, entries above less entries below."""
    return _empty(h, 5 if two_sided else 3, h.shape[0])


def _is_two_sided(saved: Tensor) -> bool:
    return saved.shape[0] == 5


def _empty_gradient(h: Tensor) -> Tensor:
    return torch.empty(h.shape, dtype=h.dtype)


def row_stats_fwd(h: Tensor) -> Tensor:
    stats = _empty(h, 4, h.shape[0])
    _native.row_stats_forward(*_matrix(h), stats.data_ptr())
    return stats


def row_stats_bwd(dstats: Tensor, h: Tensor, stats: Tensor) -> Tensor:
    dh = _empty_gradient(h)
    _native.row_stats_backward(*_matrix(h), dstats.data_ptr(), stats.data_ptr(), dh.data_ptr())
    return dh


def q_score(h: Tensor, mask: Tensor | None, eps: float, two_sided: bool = False) -> Tensor:
    """``q_score_fwd`` where no gradient is wanted: nothing is kept."""
    q = _empty(h, h.shape[0])
    _native.q_score_forward(*_matrix(h), _address(mask), eps, two_sided, q.data_ptr(), 0)
    return q


def q_score_fwd(
    h: Tensor, mask: Tensor | None, eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor]:
    q, saved = _empty(h, h.shape[0]), _empty_saved(h, two_sided)
    _native.q_score_forward(
        *_matrix(h), _address(mask), eps, two_sided, q.data_ptr(), saved.data_ptr()
    )
    return q, saved


def q_score_bwd(dq: Tensor, h: Tensor, mask: Tensor | None, q: Tensor, saved: Tensor) -> Tensor:
    dh = _empty_gradient(h)
    _native.q_score_backward(
        *_matrix(h),
        _address(mask),
        dq.data_ptr(),
        q.data_ptr(),
        saved.data_ptr(),
        _is_two_sided(saved),
        dh.data_ptr(),
    )
    return dh


def highly_active(h: Tensor, eps: float, two_sided: bool = False) -> Tensor:
    active = torch.empty(h.shape, dtype=torch.bool)
    _native.highly_active(*_matrix(h), eps, two_sided, active.data_ptr())
    return active


def activation_counts(h: Tensor, eps: float, two_sided: bool = False) -> Tensor:
    counts = torch.empty(h.shape[1], dtype=torch.int64)
    _native.activation_counts(*_matrix(h), eps, two_sided, counts.data_ptr())
    return counts


def sparse_fwd(
    h: Tensor, eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    offsets = torch.empty(h.shape[0] + 1, dtype=torch.int64)
    stats = _empty(h, 4, h.shape[0])
    entries = _native.sparse_forward(
        *_matrix(h), eps, two_sided, offsets.data_ptr(), stats.data_ptr()
    )
    return offsets, *entries.take(), stats


def score_rows(
    h: Tensor, mask: Tensor | None, eps: float, keep_eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, features = h.shape
    offsets = torch.empty(rows + 1, dtype=torch.int64)
    stats, q = _empty(h, 4, rows), _empty(h, rows)
    num_active = torch.empty(rows, dtype=torch.int32)
    counts = torch.empty(features, dtype=torch.int64)
    entries = _native.score_rows(
        *_matrix(h),
        _address(mask),
        eps,
        keep_eps,
        two_sided,
        offsets.data_ptr(),
        stats.data_ptr(),
        q.data_ptr(),
        num_active.data_ptr(),
        counts.data_ptr(),
    )
    return offsets, *entries.take(), stats, q, num_active, counts


def score_maps(
    maps: Tensor, mask: Tensor | None, eps: float, two_sided: bool, combine: str, rectify: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``maps``: (N, C, P) with unit stride along channels or positions."""
    samples, channels, positions = maps.shape
    h = _empty(maps, samples, channels)
    q, saved = _empty(maps, samples), _empty_saved(maps, two_sided)
    num_active = torch.empty(samples, dtype=torch.int32)
    heat = _empty(maps, samples, positions)
    _native.score_maps(
        _DTYPE_CODES[maps.dtype],
        torch.get_num_threads(),
        maps.data_ptr(),
        *maps.shape,
        *maps.stride(),
        _address(mask),
        eps,
        two_sided,
        _COMBINATIONS[combine],
        rectify,
        h.data_ptr(),
        q.data_ptr(),
        saved.data_ptr(),
        num_active.data_ptr(),
        heat.data_ptr(),
    )
    return h, q, num_active, heat


def sparse_bwd(
    dvalue: Tensor,
    dstats: Tensor,
    h: Tensor,
    offsets: Tensor,
    feature: Tensor,
    value: Tensor,
    stats: Tensor,
) -> Tensor:
    dh = _empty_gradient(h)
    _native.sparse_backward(
        *_matrix(h),
        dvalue.data_ptr(),
        dstats.data_ptr(),
        offsets.data_ptr(),
        feature.data_ptr(),
        value.data_ptr(),
        stats.data_ptr(),
        dh.data_ptr(),
    )
    return dh


def q_score_loss_fwd(
    h: Tensor,
    mask: Tensor | None,
    eps: float,
    lambda1: float,
    lambda2: float,
    mean: bool,
    two_sided: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, features = h.shape
    loss, q, saved = _empty(h), _empty(h, rows), _empty_saved(h, two_sided)
    row_weight, col_weight = _empty(h, rows), _empty(h, features)
    _native.loss_forward(
        *_matrix(h),
        _address(mask),
        eps,
        two_sided,
        lambda1,
        lambda2,
        mean,
        loss.data_ptr(),
        q.data_ptr(),
        saved.data_ptr(),
        row_weight.data_ptr(),
        col_weight.data_ptr(),
    )
    return loss, q, saved, row_weight, col_weight


def q_score_loss_partial(
    h: Tensor, mask: Tensor | None, eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    rows, features = h.shape
    q, saved = _empty(h, rows), _empty_saved(h, two_sided)
    sums = torch.empty(features + 2, dtype=torch.float64)
    _native.loss_partial(
        *_matrix(h),
        _address(mask),
        eps,
        two_sided,
        q.data_ptr(),
        saved.data_ptr(),
        sums.data_ptr(),
    )
    return q, saved, sums


def q_score_loss_bwd(
    dloss: Tensor,
    h: Tensor,
    mask: Tensor | None,
    q: Tensor,
    saved: Tensor,
    row_weight: Tensor,
    col_weight: Tensor,
) -> Tensor:
    dh = _empty_gradient(h)
    _native.loss_backward(
        *_matrix(h),
        _address(mask),
        dloss.data_ptr(),
        q.data_ptr(),
        saved.data_ptr(),
        _is_two_sided(saved),
        row_weight.data_ptr(),
        col_weight.data_ptr(),
        dh.data_ptr(),
    )
    return dh


def resampled_metrics(
    weights: np.ndarray,
    order: np.ndarray,
    wrong: np.ndarray,
    starts: np.ndarray,
    harmonic: np.ndarray,
    metrics: Sequence[tuple[str, float]],
) -> np.ndarray:
    """Metrics of failure prediction of resampled samples, (resamples, metrics) float64; on one thread.

    All arrays are contiguous.

    Args:
        weights: (resamples, n) int64, how often each of n samples occurs; n in all, in every row.
        order: (n,) int64, the samples by descending score. wrong: (n,) uint8, 1 or 0, in that order.
        starts: (blocks,) int64, where each block of equal scores starts in that order.
        harmonic: (n + 1,) float64, 1 + 1/2 + ... + 1/k.
        metrics: names of ``FAILURE_METRICS`` and their parameters.
    """
    codes = np.array([FAILURE_METRICS[name] for name, _ in metrics], np.int32)
    parameters = np.array([parameter for _, parameter in metrics], np.float64)
    values = np.empty((len(weights), len(metrics)))
    _native.resampled_metrics(
        weights.ctypes.data,
        *weights.shape,
        order.ctypes.data,
        wrong.ctypes.data,
        starts.ctypes.data,
        len(starts),
        harmonic.ctypes.data,
        codes.ctypes.data,
        parameters.ctypes.data,
        len(metrics),
        values.ctypes.data,
    )
    return values


def softmax_regression(
    x: Tensor, targets: Tensor, weights: Tensor, biases: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of linear probes, summed over rows, and its gradients, in one read of the rows.

    Products are float32, and so are sums over up to 192 rows; those over blocks are float64.

    Args:
        x: (n, r) float32, unit stride inside a row. targets: (n,) int64, classes from 0.
        weights: (probes, classes, r) float32. biases: (probes, classes) float32. All contiguous.

    Returns:
        losses (probes,), and the gradients of weights and biases in their shapes; all float64.
    """
    probes, classes, features = weights.shape
    sums = torch.empty(probes + probes * classes * (features + 1), dtype=torch.float64)
    _native.softmax_regression(
        torch.get_num_threads(),
        x.data_ptr(),
        *x.shape,
        x.stride(0),
        targets.data_ptr(),
        weights.data_ptr(),
        biases.data_ptr(),
        probes,
        classes,
        sums.data_ptr(),
    )
    losses, bias_gradient, gradient = sums.split(
        [probes, probes * classes, probes * classes * features]
    )
    return losses, gradient.view(weights.shape), bias_gradient.view(biases.shape)


def stream_read(h: Tensor) -> int:
    """Read ``h`` (N, r) with all threads and do nothing else: the limit of every forward."""
    return _native.stream_read(*_matrix(h))


def stream_copy(h: Tensor, out: Tensor) -> None:
    """Copy ``h`` (N, r) to ``out``, contiguous, past the caches: the limit of every backward."""
    _native.stream_copy(*_matrix(h), out.data_ptr())
