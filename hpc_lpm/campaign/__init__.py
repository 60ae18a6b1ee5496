"""Campaigns: many runs, their statistics and their report."""
