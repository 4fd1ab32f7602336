"""Device functions shared by the kernels: a tile of rows, its load, its moments, its threshold.

A tile is ``(BLOCK_M, BLOCK_D)``. Every pass over a row is a loop over blocks of BLOCK_D columns. D
is a compile-time constant: where one block holds the row the loops vanish, their equal loads become
one, and the row stays in registers. Wider rows are loaded again for each pass, from the cache.
"""

import triton
import triton.language as tl


@triton.jit
def tile_rows(tile, M, BLOCK_M: tl.constexpr):
    """Indices of the rows of a tile, int64 so that no offset overflows, and which of them exist."""
    row = tl.cast(tile, tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    return row, row < M


@triton.jit
def row_offsets(row, h_row_stride, D: tl.constexpr):
    """Where the rows begin; a stride of None is D, whose factors then tell how wide a load may be."""
    stride = h_row_stride
    if stride is None:
        stride = D
    return row * stride


@triton.jit
def block_columns(start, row_ok, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Indices of the columns from ``start``, and which elements of the tile exist."""
    column = start + tl.arange(0, BLOCK_D)
    if D % BLOCK_D == 0:
        inside = tl.broadcast_to(row_ok[:, None], (row_ok.shape[0], BLOCK_D))
    else:
        inside = row_ok[:, None] & (column < D)[None, :]
    return column, inside


@triton.jit
def load_block(h_ptr, h_row, start, row_ok, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """h as float32 with zeros outside, the column indices, and which elements exist.

    ``h_row`` is the int64 offset of each row. A row that is read once leaves the cache first.
    """
    EVICTION: tl.constexpr = "evict_first" if D <= BLOCK_D else "evict_last"
    column, inside = block_columns(start, row_ok, D, BLOCK_D)
    pointers = h_ptr + h_row[:, None] + column[None, :]
    h = tl.load(pointers, mask=inside, other=0.0, eviction_policy=EVICTION)
    return h.to(tl.float32), column, inside


@triton.jit
def zero_padding(values, column, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """``values`` of a tile with zeros in the columns that do not exist."""
    if D % BLOCK_D != 0:
        values = tl.where((column < D)[None, :], values, 0.0)
    return values


@triton.jit
def load_field(ptr, field: tl.constexpr, row, row_ok, M):
    """Row ``field`` of a contiguous (fields, M) tensor."""
    return tl.load(ptr + field * M.to(tl.int64) + row, mask=row_ok, other=0.0)


@triton.jit
def store_field(ptr, field: tl.constexpr, value, row, row_ok, M):
    tl.store(ptr + field * M.to(tl.int64) + row, value, mask=row_ok)


@triton.jit
def store_moments(stats_ptr, mean, std, l1, l2, row, row_ok, M):
    """The statistics of each row, (4, M)."""
    store_field(stats_ptr, 0, mean, row, row_ok, M)
    store_field(stats_ptr, 1, std, row, row_ok, M)
    store_field(stats_ptr, 2, l1, row, row_ok, M)
    store_field(stats_ptr, 3, l2, row, row_ok, M)


@triton.jit
def row_sum(values, row_ok):
    """The sum of each row of a tile; 0 for a row that does not exist.

    Selected, so that no compiler pass carries threads' partial sums from block to block in some kernels
    and not in others: with the same layout a row's sums are the same to the last bit.
    """
    return tl.where(row_ok, tl.sum(values, axis=1), 0.0)


@triton.jit
def row_moments(
    h_ptr, h_row, row_ok, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Mean, standard deviation (D - 1), L1 and L2 norm of each row; the mean before the spread."""
    total = tl.zeros((BLOCK_M,), tl.float32)
    l1 = tl.zeros((BLOCK_M,), tl.float32)
    squares = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, D, BLOCK_D):
        h, _, _ = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
        total += row_sum(h, row_ok)
        l1 += row_sum(tl.abs(h), row_ok)
        squares += row_sum(h * h, row_ok)
    mean = tl.div_rn(total, tl.full((BLOCK_M,), D, tl.float32))

    centred_squares = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, D, BLOCK_D):
        h, column, _ = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
        # Otherwise every padded column would add mean^2.
        centred = zero_padding(h - mean[:, None], column, D, BLOCK_D)
        centred_squares += row_sum(centred * centred, row_ok)
    if D > 1:
        std = tl.sqrt_rn(centred_squares / (D - 1))
    else:
        std = tl.full((BLOCK_M,), float("nan"), tl.float32)
    return mean, std, l1, tl.sqrt_rn(squares)


@triton.jit
def active_thresholds(mean, std, l2, eps):
    """mu + eps sigma and mu - eps sigma, or NaN, beyond which nothing is, where the norm is not finite."""
    finite = l2 < float("inf")
    high = tl.where(finite, mean + eps * std, float("nan"))
    return high, tl.where(finite, mean - eps * std, float("nan"))


@triton.jit
def active_elements(h, high, low, TWO_SIDED: tl.constexpr):
    """Which elements of a tile are in L: above ``high``, or TWO_SIDED below ``low``.

    None is in a row that does not exist: its h and its thresholds are 0.
    """
    active = h > high[:, None]
    if TWO_SIDED:
        active = active | (h < low[:, None])
    return active


@triton.jit
def load_members(mask_ptr, column, D: tl.constexpr):
    """Which columns are in the mask; without one, all that exist."""
    members = column < D
    if mask_ptr is not None:
        members = tl.load(mask_ptr + column, mask=members, other=0) != 0
    return members


@triton.jit
def reciprocal_norm(l2):
    """1 / n, and 0 for a zero row. A NaN stays."""
    return tl.where(l2 == 0, 0.0, 1.0 / l2)


@triton.jit
def times_sign(value, h):
    """value sign(h), by the sign bit of h: fewer instructions than two comparisons."""
    sign_bit = h.to(tl.int32, bitcast=True) & -0x80000000
    signed = (value.to(tl.int32, bitcast=True) ^ sign_bit).to(tl.float32, bitcast=True)
    return tl.where(h == 0, 0.0, signed)


@triton.jit
def add_to_partial(partial_row, column, addend, is_first, D: tl.constexpr):
    """Add to a program's own row of partial sums, or set it at the program's first tile."""
    filled = tl.where(is_first, 0, D)
    before = tl.load(partial_row + column, mask=column < filled, other=0)
    tl.store(partial_row + column, before + addend, mask=column < D)
    # Each thread should meet its own sums again; the barrier makes it so in any layout.
    tl.debug_barrier()
