"""Heat maps: the kernel, scoring with and without them, and 30 features an image against other libraries."""
