"""What depth costs: how far weights lag, and what a step is then worth."""
