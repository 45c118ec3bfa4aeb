"""Distillation and pretraining methods, as functions of callables."""
