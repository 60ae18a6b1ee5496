"""Messages between neighbouring stages: one interface, a file for each way to send them."""
