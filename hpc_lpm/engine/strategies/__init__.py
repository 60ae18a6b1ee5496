"""The strategies: what each needs, which options it takes and which runs it refuses."""
