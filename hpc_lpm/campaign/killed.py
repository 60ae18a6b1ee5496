"""What to tell the user about a command that was killed from outside."""

_KILLED = 128 + 9


def explain_killed(exit_code: int) -> str | None:
    """Return a sentence if the exit code is that of a process, or of a rank, ended by signal 9."""
    if exit_code != _KILLED:
        return None
    return (
        "a process was killed by signal 9, as the kernel and schedulers do when memory runs out: "
        "ask for more (resources.memory_megabytes), or train with more micro-batches, fewer "
        "samples or more stages."
    )
