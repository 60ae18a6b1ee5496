"""The errors that a user can mend, told apart from defects of the toolkit."""


class InputError(Exception):
    """Bad usage or bad input; the command line shows the message and exits with code 2.

    The message is one sentence: what was found, where, what is accepted, what to do.
    """


def closest(word: str, accepted: list[str]) -> str:
    """Return a hint such as `, did you mean 'gpipe'?`, or nothing if no name is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, accepted, n=1)
    return f", did you mean {near[0]!r}?" if near else ""
