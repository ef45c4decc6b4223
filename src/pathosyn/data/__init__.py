"""Scans on disk, and what is computed once from them: reading, checking, masks, windows and the prepared file."""
