"""The training programs: one step, the loop around it, what the user sees."""
