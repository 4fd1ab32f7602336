"""The Triton kernels for CUDA and ROCm: check, allocate the outputs, launch.

Every function takes ``h`` as (N, r) with unit stride inside a row and any row stride, float32,
float16 or bfloat16; sums and statistics are float32. A row is read from memory once and is kept in
registers; one too long for that is read again from the cache, a block of columns at a time.
``score_maps`` takes feature maps (N, r, positions) instead. With TRITON_INTERPRET=1 in the
environment the same code runs on CPU tensors, slowly.
"""

from .active import activation_counts, highly_active
from .q_score import q_score, q_score_bwd, q_score_fwd
from .q_score_loss import q_score_loss_bwd, q_score_loss_fwd, q_score_loss_partial
from .row_stats import row_stats_bwd, row_stats_fwd
from .score_maps import score_maps
from .score_rows import score_rows
from .sparse import sparse_bwd, sparse_fwd

__all__ = [
    "row_stats_fwd",
    "row_stats_bwd",
    "q_score",
    "q_score_fwd",
    "q_score_bwd",
    "highly_active",
    "activation_counts",
    "sparse_fwd",
    "sparse_bwd",
    "q_score_loss_fwd",
    "q_score_loss_partial",
    "q_score_loss_bwd",
    "score_rows",
    "score_maps",
]
