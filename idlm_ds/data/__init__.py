"""Corpora, tokenizers, prepared data, and the loader of batches."""
