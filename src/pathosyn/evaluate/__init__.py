"""Is it any good? One file a question; each reads real windows from a slices file and drawn ones from SyntheticSets, never a method."""
