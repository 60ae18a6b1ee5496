"""Which strategy to use: all of them predicted for a model and its devices, and put in order."""
