"""Whole runs: distillation, pretraining, and what a run would be."""
