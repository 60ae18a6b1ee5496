"""A real Slurm cluster on one Linux machine: every node with a network, a name and cores of its own.

Written for the standard library alone, since it is started before anything is installed.
"""
