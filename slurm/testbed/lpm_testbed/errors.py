"""The error that a user can mend."""


class TestbedError(Exception):
    """One sentence: what was found, and what to do."""
