"""The Pareto front of period, boundary bytes and memory."""
