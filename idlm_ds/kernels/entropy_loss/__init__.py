"""Score entropy of SEDD at masked positions, of soft and hard targets."""
