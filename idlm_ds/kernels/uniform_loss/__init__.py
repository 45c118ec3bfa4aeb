"""Loss of the uniform families, of soft targets."""
