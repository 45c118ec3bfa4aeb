"""What other programs load from here by entry point."""
