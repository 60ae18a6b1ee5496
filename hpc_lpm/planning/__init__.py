"""Merging neighbouring layers into stages."""
