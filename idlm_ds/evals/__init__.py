"""Float64 accumulators, judges and reports."""
