"""Gap of the uniform families: teacher loss minus fake loss."""
