"""Further training of a self-supervised encoder with its own objective and Q-Score as a regulariser."""
