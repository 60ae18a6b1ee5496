"""Which ways of updating the weights a strategy allows.

Plain Python without torch: a campaign file is checked with it before anything trains.
"""

from hpc_lpm.errors import InputError
from hpc_lpm.options import ClipScope, LearningRateSettings
from hpc_lpm.schedules.registry import SCHEDULES

CLIPS_GLOBALLY = frozenset({"deepspeed-1f1b"})
"""Strategies whose stages agree on one norm before every update, in an engine not ours."""


def lags(strategy: str) -> bool:
    """Tell if weights are updated between the two passes of a micro-batch."""
    return strategy in SCHEDULES.names() and not SCHEDULES.named(strategy).flushes


def check_update_rules(
    strategy: str, *, clip_norm: float | None, clip_scope: ClipScope, lr_discount: bool
) -> None:
    """Check that a strategy can clip and discount as asked.

    Raises:
        InputError: if it cannot.
    """
    if lr_discount and not lags(strategy):
        offered = ", ".join(name for name in SCHEDULES.names() if lags(name))
        raise InputError(
            f"--lr-discount was given with --strategy {strategy}, where no micro-batch lags and "
            f"nothing is to be discounted: leave it out, or use --strategy {offered}."
        )
    if clip_scope == "global" and strategy in SCHEDULES.names():
        raise InputError(
            f"--clip-scope global was given with --strategy {strategy}: the norm over all stages "
            "would make every stage wait for all others before each update: use --clip-scope "
            "stage, which clips each stage by its own norm."
        )
    if clip_scope == "global" and clip_norm is None:
        raise InputError("--clip-scope global clips nothing without --clip-norm: give the norm.")
    if clip_norm is not None and clip_scope == "stage" and strategy in CLIPS_GLOBALLY:
        raise InputError(
            f"--clip-scope stage was found with --strategy {strategy}, whose engine clips by the "
            "norm over all stages: use --clip-scope global."
        )


def check_warmup(settings: LearningRateSettings, updates: int) -> None:
    """Check that the warm-up ends before the training does.

    Raises:
        InputError: if it does not.
    """
    if settings.warmup_steps and settings.warmup_steps >= updates:
        raise InputError(
            f"--warmup-steps {settings.warmup_steps} is not below the {updates} optimizer steps of "
            "the whole run: warm up for fewer, or train longer."
        )
