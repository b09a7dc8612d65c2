"""The learning rate, and the end of a session that has a time limit."""

import time

DECAY = 0.25  # The last part of a training, over which the learning rate falls to 0.


def learning_rate(seen: float, total: float, warmup: float) -> float:
    """A factor in [0, 1]: linear warm-up, constant, and linear decay over the last part.

    seen, total, warmup: in the same unit, such as tokens.
    """
    return min(1.0, (seen + 1) / warmup, max(0.0, (total - seen) / (DECAY * total)))


class Session:
    """One session of a training script, with or without a limit in minutes.

    The limit is a time, but the schedule counts tokens. The speed so far converts between them.
    """

    def __init__(self, seen: float, total: float, minutes: float | None) -> None:
        """seen: tokens of earlier sessions. total: tokens of all sessions together.

        minutes: the limit of this session. None: no limit.
        """
        self.start = seen
        self.total = total
        self.minutes = minutes
        self._began = time.monotonic()

    def last_token(self, seen: float) -> float:
        """Where this session will end, in tokens of all sessions, estimated after `seen` tokens."""
        if not self.minutes:
            return self.total
        speed = (seen - self.start) / (time.monotonic() - self._began)
        return min(self.total, self.start + speed * self.minutes * 60)

    def minutes_left(self, seen: float) -> float:
        """How many minutes are left after `seen` tokens, at the speed so far."""
        passed = time.monotonic() - self._began
        return (self.last_token(seen) - seen) * passed / max(1.0, seen - self.start) / 60
