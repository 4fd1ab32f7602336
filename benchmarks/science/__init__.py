"""The experiment: the paper's claims, on real images and on a population whose truth is planted."""
