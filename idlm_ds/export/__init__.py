"""Students as Hugging Face folders that load where this package is not installed."""
