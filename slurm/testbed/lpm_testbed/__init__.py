"""A real Slurm cluster on one Linux machine: nodes with networks, names and cores of their own.

It only uses the standard library, since it may be started before anything is installed.
"""
