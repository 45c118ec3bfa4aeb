"""Diffusion families: corruption, losses, reverse step."""
