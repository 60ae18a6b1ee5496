"""Where training drains of its own accord: the end of a segment."""

from hpc_lpm.engine.settings import TrainSettings


def next_drain(settings: TrainSettings, step: int, steps_an_epoch: int, steps: int) -> int:
    """Return after which optimizer step training drains next.

    That is the end of the epoch or of the run, a drain that was asked for, or a checkpoint.

    Args:
        settings: with what was asked for.
        step: the steps done, fewer than `steps`.
        steps_an_epoch: those of a whole epoch.
        steps: those of the whole run.
    """
    due = [steps, (step // steps_an_epoch + 1) * steps_an_epoch]
    due += [asked for asked in settings.drain_at if asked > step]
    if every := settings.checkpoint_steps:
        due.append((step // every + 1) * every)
    return min(due)
