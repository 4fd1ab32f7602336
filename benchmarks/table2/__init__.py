"""The paper's Table 2: eight systems, trained further with and without Q-Score, and probed."""
