"""One scan: made ready for the networks, through them, back into the file's own voxels, and what is written of it."""
