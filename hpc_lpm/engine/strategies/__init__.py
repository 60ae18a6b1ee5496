"""The strategies: what each is, what it needs, what it takes and what it refuses."""
