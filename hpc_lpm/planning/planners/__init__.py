"""The planners: each chooses the cuts of a plan, and all are priced by the same cost model."""
