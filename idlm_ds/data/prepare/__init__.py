"""Preparation of a corpus, which runs once before training."""
