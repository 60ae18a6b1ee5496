"""The error that a user can fix."""


class TestbedError(Exception):
    """The message is one sentence: what was found, and what to do."""
