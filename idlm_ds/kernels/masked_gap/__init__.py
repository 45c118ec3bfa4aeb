"""Gap of MDLM: teacher loss minus fake loss at masked positions."""
