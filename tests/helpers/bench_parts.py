"""Shared parts of the bench's tests: work on a clock that is told what to show, and a row."""

from bench import rows
from bench.rows import SPEED, Row, Spent


class Clock:
    """A clock on which work takes the times that it says; the processor works half of it."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(rows, "timer", lambda: self.now)
        monkeypatch.setattr(rows.time, "process_time", lambda: self.now / 2)

    def work(self, *seconds):
        """Work that takes these times, one after the other, and the last ever after."""
        left = list(seconds)

        def work(*_):
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return work


def a_row(sense=SPEED, ours=1.0, reference=2.0, **more):
    return Row(
        "work",
        ("ours", "textbook"),
        [(Spent(ours, ours), Spent(reference, reference))],
        sense,
        **{"kind": "losses", **more},
    )
