"""What the tests of the bench share: a clock that is told what to show, and a row."""

from bench.rows import Row, Sense
from bench.timing import Spent


class Clock:
    """A stopwatch whose times are those that the work says it took."""

    def __init__(self):
        self.now = 0.0

    def work(self, *seconds):
        """Work that takes these times, one after the other, and the last ever after."""
        left = list(seconds)

        def work(*_):
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return work

    def __call__(self, work):
        start = self.now
        work()
        return Spent(self.now - start, (self.now - start) / 2)


def a_row(sense=Sense.SPEED, ratio=2.0, seconds=1.0, **more):
    return Row("losses", "work", "ours", "textbook", sense, seconds, 2.0, ratio, 1.0, 3.0, 2.0, 5, **more)
