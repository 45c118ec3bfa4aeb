"""Metrics: functions from tensors and texts to numbers, without file access."""
