"""Progress of a sweep on standard error: the table as it fills on a terminal, a line for each run elsewhere."""

import shutil
import time
from collections.abc import Sequence

from rich.live import Live
from rich.text import Text

from densecl.sweep.jobs import Job
from densecl.sweep.submit import Ended, Engine
from densecl.tables.forms.text import render
from densecl.tables.table import rows
from densecl.terminal import humanise, say, stderr_console

REFRESH = 1.0  # seconds between looks at the records
RUNNING_SHOWN = 8  # lines


class Display:
    """A context that shows the runs of a sweep."""

    def __init__(self, jobs: Sequence[Job], quiet: bool = False):
        self.jobs, self.quiet = jobs, quiet
        self.console = stderr_console()
        self._live: Live | None = None
        self._looked = 0.0
        self._begun = time.monotonic()

    def line(self, text: str) -> None:
        """One line, unless quiet."""
        if not self.quiet:
            say(self.console, text)

    def __enter__(self) -> "Display":
        if self.console.is_interactive and not self.quiet:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def ended(self, result: Ended, done: int, log: str) -> None:
        """A run has ended, the `done`-th of all."""
        place = f"[{done}/{len(self.jobs)}] {result.job}"
        if not result.problem:
            self.line(f"{place}: finished{_score(result.job)}")
            return
        self.line(f"{place}: failed, {result.problem}; {log} ends with")
        for line in result.lines or ("(nothing)",):
            self.line(f"    {line}")

    def refresh(self, engine: Engine, failed: int) -> None:
        """Show table and running jobs anew, if it is time to."""
        now = time.monotonic()
        if self._live is None or now - self._looked < REFRESH:
            return
        self._looked = now
        records = {job.number: record for job in self.jobs if (record := job.record()) is not None}
        running = engine.running()
        lines = []
        for job in running[:RUNNING_SHOWN]:
            done = len(records[job.number].steps) if job.number in records else 0
            step, steps = min(done, len(job.iterations) - 1), len(job.iterations)
            lines.append(f"running: {job}, step {step} ({step + 1} of {steps})")
        if len(running) > RUNNING_SHOWN:
            lines.append(f"and {len(running) - RUNNING_SHOWN} more")
        finished = sum(record.status == "finished" for record in records.values())
        state = f"{finished} of {len(self.jobs)} finished, {len(running)} running, {engine.waiting()} waiting"
        lines.append(state + (f", {failed} failed" if failed else "") + f", {humanise(now - self._begun)}")
        size = shutil.get_terminal_size()
        table = render(rows([*records.values()]), width=size.columns, colour=True) if records else ""
        shown = table.splitlines()[: max(0, size.lines - len(lines) - 2)]
        self._live.update(Text.from_ansi("\n".join([*shown, "", *lines])), refresh=True)


def _score(job: Job) -> str:
    """The mIoU of a finished run, beside what the plan says a paper reports."""
    record = job.record()
    if record is None or not record.steps or not record.steps[-1].evaluations:
        return ""
    miou = (record.steps[-1].evaluations[0].metrics.get("miou") or {}).get("all")
    reported = job.request.reported
    beside = "" if reported is None else f" (reported {reported:.1f})"
    seconds = humanise(sum(step.seconds for step in record.steps if not step.shared))
    return f", {seconds} of training" + ("" if miou is None else f", mIoU {100 * miou:.1f}{beside}")
