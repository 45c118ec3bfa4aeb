"""Distillation and pretraining methods, as functions of networks that are callables."""
