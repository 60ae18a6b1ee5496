"""The search for the stages and replicas that train fastest on a number of devices."""
