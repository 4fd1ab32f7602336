"""Evaluation of representations: what they are worth, to a probe and without labels."""
