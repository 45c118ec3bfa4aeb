"""Loss of MDLM at masked positions, of soft and hard targets."""
