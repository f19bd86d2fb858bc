"""A clock that moves only when a test moves it."""


class Clock:
    """Shows `now`, in seconds."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now
