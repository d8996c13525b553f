"""One run of a sweep as a process of its own, which a job of submitit starts, watches and ends.

Such a job waits beside each run, so this module imports neither torch nor the rest of the package.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

RUN = (sys.executable, "-m", "densecl.cli.child")  # what a run is started by
MARK = "$ densecl "  # begins the line that stands before the output of each start
PATIENCE = 20.0  # seconds for a run to write what is pending
SHOWN = 8  # lines of a run that failed


@dataclass(frozen=True)
class Launch:
    """The function that submitit calls: start `densecl WORDS`, wait for its end, and return its exit code."""

    command: tuple[str, ...]  # `RUN` of the machine that submits
    words: tuple[str, ...]  # of the command line
    log: Path  # the run's output is appended there
    variables: Mapping[str, str | None]  # of the environment; None takes one away
    sweep: Path | None = None  # a named pipe that a local sweep holds open: the run ends when it does

    def __call__(self) -> int:
        """Run to the end. A job that has to leave early ends its run."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        variables = {name: value for name, value in {**os.environ, **self.variables}.items() if value is not None}
        with self.log.open("ab") as log:
            log.write(f"{MARK}{shlex.join(self.words)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [*self.command, *self.words],
                stdin=subprocess.PIPE,  # the run ends when it is closed
                stdout=log,
                stderr=log,
                env=variables,
                start_new_session=True,
            )
        if self.sweep is not None:
            threading.Thread(target=end_with, args=(self.sweep, partial(stop, process)), daemon=True).start()
        try:
            code = process.wait()
        finally:
            stop(process)
        if code and self.sweep is None:
            sys.exit(code if code > 0 else 128 - code)  # for SLURM's own books
        return code

    def checkpoint(self) -> Any:
        """At the end of a SLURM job's time: submit the same again, which goes on from the last epoch."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def end_with(sweep: Path, end: Callable[[], object]) -> None:
    """Call `end` when nobody holds the named pipe open for writing: the sweep has ended, or was killed."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(sweep, os.O_RDONLY | os.O_NONBLOCK)  # blocking, it would wait for a writer
        os.set_blocking(descriptor, True)
        os.read(descriptor, 1)
    end()


def stop(process: subprocess.Popen[bytes], patience: float = PATIENCE) -> None:
    """Let a run write what is pending and end; kill what is left of it then, and all that it started."""
    try:
        if process.poll() is None:
            process.terminate()  # not its group: loaders are ended by their run, which would take it for a fault
            process.wait(patience)
    except subprocess.TimeoutExpired:
        pass
    finally:  # a second signal ends the patience
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdin is not None:
            process.stdin.close()
        process.wait()


def last_lines(log: Path) -> tuple[str, ...]:
    """The end of what the last start in a log wrote."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    after = f"\n{text}".rpartition(f"\n{MARK}")[2]  # begins with the rest of the marked line
    return tuple(line.rstrip() for line in after.splitlines()[1:] if line.strip())[-SHOWN:]


def explain_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    return f"killed by {next((number.name for number in signal.Signals if number == -code), f'signal {-code}')}"
