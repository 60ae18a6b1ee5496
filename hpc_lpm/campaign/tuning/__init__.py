"""The search for the settings under which a contestant is fastest, before it is raced."""
