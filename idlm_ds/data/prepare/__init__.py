"""Preparation of a corpus: what runs once, before training."""
