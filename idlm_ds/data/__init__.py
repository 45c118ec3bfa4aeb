"""Everything up to a batch."""
