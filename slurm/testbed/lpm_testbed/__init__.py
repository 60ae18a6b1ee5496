"""A real Slurm cluster on one Linux machine: nodes with networks, names and cores of their own.

Written for the standard library alone, since it is started before anything is installed.
"""
