"""What a drawn lesion looks like: its coarse form, the numbers that describe it, its texture. Pure functions; a model is asked for settings and units."""
