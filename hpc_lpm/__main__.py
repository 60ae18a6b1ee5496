"""`python -m hpc_lpm`, and under mpirun `python -m mpi4py -m hpc_lpm`."""

from hpc_lpm.cli.main import main

main()
