"""What ways to train are predicted to do on a number of devices: pipelines, data parallelism."""
