"""How long a run will still take, from its planned iterations and the time that it has taken so far."""

from collections.abc import Sequence


class Estimate:
    """Seconds left of a whole run.

    Iterations of the step in training cost what they cost since its first look; those of later steps the same, until
    they show otherwise. What a step takes besides (preparing, synthesis of images, evaluation) is taken from the last
    finished step. Time is handed in: seconds of any clock.

    Args:
        iterations: planned of each step. now: the time.
    """

    def __init__(self, iterations: Sequence[int], now: float):
        self.iterations = tuple(iterations)
        self._finished = set[int]()
        self._step: int | None = None
        self._done = 0  # iterations of the step in training
        self._first: tuple[int, float] | None = None  # iteration and time of the step's first look
        self._last: tuple[int, float] | None = None
        self._between = now  # when the last step ended
        self._rate: float | None = None  # seconds an iteration
        self._besides: float | None = None  # seconds of a step that are not its iterations

    def step_started(self, step: int, done: int) -> None:
        """A step trains; `done` of its iterations are behind it, and all steps before."""
        self._finished |= set(range(step))
        self._step, self._done, self._first, self._last = step, done, None, None

    def looked(self, iteration: int, now: float) -> None:
        """So many iterations of the step are done."""
        self._done = iteration
        self._first, self._last = self._first or (iteration, now), (iteration, now)
        count = iteration - self._first[0]
        if count > 0:
            self._rate = (now - self._first[1]) / count

    def step_finished(self, step: int, now: float) -> None:
        """A step is trained, or was loaded, and is evaluated."""
        whole = now - self._between
        if self._step == step and self._first and self._last:  # else loaded: that says nothing of those to come
            self._besides = whole - (self._last[1] - self._first[1])
        self._finished |= set(range(step + 1))
        self._step, self._between = None, now

    def share(self) -> float:
        """How much of all iterations is done, 0 to 1."""
        done = sum(self.iterations[k] for k in self._finished if k < len(self.iterations))
        running = self._done if self._step is not None and self._step not in self._finished else 0
        return (done + running) / max(1, sum(self.iterations))

    def step_left(self, now: float) -> float | None:
        """Seconds until the step in training has done its iterations; None while it is not known."""
        if self._step is None or self._rate is None:
            return None
        since = now - self._last[1] if self._last else 0.0
        return max(0.0, (self.iterations[self._step] - self._done) * self._rate - since)

    def left(self, now: float) -> float | None:
        """Seconds until the run ends; None before an iteration was timed."""
        if self._rate is None:
            return None
        besides = self._besides or 0.0
        later = [n for k, n in enumerate(self.iterations) if k not in self._finished and k != self._step]
        left = sum(later) * self._rate + len(later) * besides
        training = self.step_left(now)
        if self._step is None or training is None:
            return left
        over = now - self._last[1] if self._last and not training else 0.0  # of its evaluation
        return left + training + max(0.0, besides - over)
