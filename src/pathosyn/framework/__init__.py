"""What several methods share: f_sub, support and units of the deviation (`base`), codes of a deviation (`codes`, `coding`), codes of a slice (`latents`)."""
