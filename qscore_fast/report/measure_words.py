"""What each dataset-level measure says, in a line; docs/measures.md has the definitions."""

MEASURE_WORDS = {
    "rankme": "how many directions are in use, by the entropy of the singular values",
    "effective_rank": "how many directions carry variance, by the entropy of the eigenvalues",
    "alpha_req": "how fast the eigenvalues fall: the exponent of their power law",
    "nesum": "all variance over that of the largest direction",
    "stable_rank": "the squared norm over the squared largest singular value",
    "participation_ratio": "how many directions share the variance",
    "participation_ratio_corrected": "the same, corrected for few samples and features",
    "anisotropy": "the largest direction's share of the variance; low is healthy",
    "pseudo_condition": "the smallest singular value over the largest: 1 is isotropic, 0 rank-deficient",
    "coherence": "how far one image decides a direction alone; low is healthy",
    "self_clustering": "how much directions gather, beside what chance gives; near 0 is healthy",
    "uniformity": "how evenly directions cover the sphere; low is healthy",
    "normalised_std": "the spread of a feature over rows of length 1",
    "sparsity_l0": "the share of the entries that are not 0",
    "sparsity_l1": "how evenly a row's length is spread over its entries",
    "cluster_learnability": "how well a nearest neighbour tells the cluster; high is healthy",
    "intrinsic_dimension": "the dimension of the data, from the two nearest neighbours",
    "clid": "cluster learnability and intrinsic dimension together; high is healthy",
}
