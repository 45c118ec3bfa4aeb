"""The composition root: recipes become objects here, and names are matched nowhere else."""
