"""Inverse-distilled diffusion language models on DeepSpeed."""

__version__ = "0.1.0"
