"""Survival probability of a token over diffusion time."""
