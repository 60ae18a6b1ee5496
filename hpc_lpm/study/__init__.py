"""Campaigns in a folder of one's own: the files that start one, and what a newer release changes."""
