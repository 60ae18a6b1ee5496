"""Which stage does what, in which order; plain Python without torch."""
