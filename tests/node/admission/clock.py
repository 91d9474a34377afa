class Clock:
    """A monotonic clock that a test sets by hand."""

    now = 50.0

    def __call__(self) -> float:
        return self.now
