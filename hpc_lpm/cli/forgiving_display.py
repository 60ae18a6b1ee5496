"""Shows the progress of a training as long as that succeeds."""

from collections.abc import Callable

from hpc_lpm.engine.run_reporter import ProgressDisplay


class ForgivingDisplay:
    """A display of progress that is given up when it fails, while the training goes on.

    Args:
        make: makes the display.
        complain: called once with a sentence if the display fails.
    """

    def __init__(
        self, make: Callable[[], ProgressDisplay], complain: Callable[[str], None]
    ) -> None:
        self._display: ProgressDisplay | None = None
        self._complain = complain
        try:
            self._display = make()
        except Exception as error:
            self._give_up(error)

    def step(self, done: int, text: str) -> None:
        """Show that `done` steps are finished."""
        self._attempt(lambda display: display.step(done, text))

    def message(self, text: str) -> None:
        """Show a line that stays."""
        self._attempt(lambda display: display.message(text))

    def close(self) -> None:
        """Stop drawing."""
        self._attempt(lambda display: display.close())

    def _attempt(self, action: Callable[[ProgressDisplay], None]) -> None:
        if self._display is None:
            return
        try:
            action(self._display)
        except Exception as error:  # whatever it is, it is no reason to lose a training
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._display = None
        self._complain(f"progress is no longer shown ({type(error).__name__}: {error})")
