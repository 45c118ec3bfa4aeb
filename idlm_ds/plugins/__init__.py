"""Adapters that other programs load by entry point."""
