"""Runs that end in the middle, as if somebody had pressed Ctrl-C."""


class StopAtFive:
    """Progress of a run that is interrupted behind its fifth step."""

    def on_step(self, step, steps, loss):
        if step == 5:
            raise KeyboardInterrupt

    def on_validation(self, step, report, *, is_best):
        pass
