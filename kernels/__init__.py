"""Device code: ``triton`` for CUDA and ROCm, ``cpu`` for the native C++ core.

Both packages offer the same functions on two-dimensional tensors; ``qscore_fast.ops`` is their only caller.
"""
