"""What trains a run: one rank's part of each strategy."""
