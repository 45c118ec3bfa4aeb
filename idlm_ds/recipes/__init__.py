"""Everything a run depends on, as frozen values; no torch here."""
