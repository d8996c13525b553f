"""Bars of `rich.progress` for the runs of this package, and the time that a run has left."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

GAP = "  "


class Words(ProgressColumn):
    """Phrases of a task's field `words`: as many, from the first on, as fit whole. Rich would cut all of them short."""

    def __init__(self, phrases: Sequence[str] = ()):
        super().__init__()
        self.phrases = phrases

    def render(self, task: Task) -> "Words":
        """The phrases of one task."""
        return Words(task.fields["words"])

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(1, cell_len(GAP.join(self.phrases))))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        texts = [GAP.join(self.phrases[:count]) for count in range(len(self.phrases), 0, -1)]  # the longest first
        text = next((text for text in texts if cell_len(text) <= options.max_width), texts[-1] if texts else "")
        yield Text(text, no_wrap=True, overflow="ellipsis")


class Bars(Progress):
    """Bars as wide as the words beside them allow; below those of a run a line of words.

    Args:
        newest: called for each frame: brings the tasks up to date, returns the line of words.
    """

    def __init__(self, console: Console, newest: Callable[[], Sequence[str]], **options: Any):
        columns = (
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(None, "bright_black", "cyan", "cyan", table_column=Column(ratio=1)),
            TextColumn("{task.percentage:>3.0f}%"),
            Words(),
        )
        self._newest = newest
        super().__init__(*columns, console=console, transient=True, expand=True, **options)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The lines of this moment; the field `beside` marks what a run does beside training."""
        words = self._newest() if self.tasks else ()  # rich also asks before there is anything to show
        yield self.make_tasks_table([task for task in self.tasks if not task.fields["beside"]])
        if words:
            yield Words(words)
        yield self.make_tasks_table([task for task in self.tasks if task.fields["beside"]])


class Estimate:
    """Seconds left of a run: rich knows one bar, a run has steps to come, each with an evaluation.

    An iteration takes as long as it has since the first look at its step, in later steps too until they show otherwise.
    What a step takes besides (preparing, synthesis of images, evaluation) is taken from the last finished step.

    Args:
        iterations: planned of each step. now: seconds of any clock.
    """

    def __init__(self, iterations: Sequence[int], now: float):
        self.iterations = tuple(iterations)
        self._step, self._done, self._training = 0, 0, False  # steps before `_step` are finished
        self._first: tuple[int, float] | None = None  # iteration and time of the first look at the step
        self._last = self._ended = now  # times of the newest look, and of the end of the last step
        self._rate: float | None = None  # seconds an iteration
        self._besides = 0.0  # seconds of a step that are not its iterations

    def step_started(self, step: int, done: int) -> None:
        """A step trains; `done` of its iterations were trained before a kill."""
        self._step, self._done, self._training, self._first = step, done, True, None

    def looked(self, iteration: int, now: float) -> None:
        """So many iterations of the step are done."""
        self._done, self._last, self._first = iteration, now, self._first or (iteration, now)
        if iteration > self._first[0]:
            self._rate = (now - self._first[1]) / (iteration - self._first[0])

    def step_finished(self, step: int, now: float) -> None:
        """A step is evaluated, trained by this run or loaded."""
        if self._training and self._step == step and self._first:  # a loaded one says nothing of those to come
            self._besides = now - self._ended - (self._last - self._first[1])
        self._training, self._step, self._done, self._ended = False, step + 1, 0, now

    def share(self) -> float:
        """Iterations that are done, as a part of all."""
        return (sum(self.iterations[: self._step]) + self._done) / max(1, sum(self.iterations))

    def left(self, now: float) -> tuple[float | None, float | None]:
        """Seconds until the step in training has done its iterations, and until the run ends; None while unknown."""
        if self._rate is None:
            return None, None
        step, training = self._step, self._training  # in this order: the display asks from a thread of its own
        later = self.iterations[step + training :]
        left = sum(later) * self._rate + len(later) * self._besides
        if not training:
            return None, left
        due = (self.iterations[step] - self._done) * self._rate - (now - self._last if self._first else 0.0)
        return max(0.0, due), left + max(0.0, due) + max(0.0, self._besides + min(0.0, due))
