"""Tensors and texts to numbers."""
