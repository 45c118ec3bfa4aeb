"""Networks to samples, samples to scores, scores to rows, tables and figures."""
