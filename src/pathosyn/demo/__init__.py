"""Everything once, on phantoms, and the page that shows it."""
