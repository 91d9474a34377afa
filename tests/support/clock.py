"""A clock that a test sets by hand."""

from tests.support import fixtures


class ManualClock:
    """Unix time, which stands still until a test sets `time`."""

    def __init__(self, time: float = fixtures.START) -> None:
        self.time = time

    def now(self) -> float:
        return self.time
