"""``python -m benchmarks.finetuning``: what the regulariser costs a step, and whether images keep up."""
