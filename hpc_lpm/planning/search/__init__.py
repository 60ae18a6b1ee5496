"""The exact search for the best plan within limits."""
