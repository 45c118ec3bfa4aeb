"""Noise schedules: survival probability of a token as a function of diffusion time."""
