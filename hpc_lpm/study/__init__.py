"""Campaigns in a folder of one's own: the files that start one, and what changes with a release."""
