"""What campaigns and the doctor need of Slurm and MPI, whatever it is that runs there."""
