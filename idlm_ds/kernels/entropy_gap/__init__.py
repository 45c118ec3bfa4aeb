"""Gap of SEDD: teacher loss minus fake loss at masked positions."""
