"""Starting and stopping one run as a process of its own, with its output in a file."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from densecl.files import write_error

RUN = (sys.executable, "-m", "densecl.cli.child")  # what a run is started by
MARK = "$ densecl "  # begins the line that stands before the output of each start
PATIENCE = 20.0  # seconds for a run to write what is pending
SHOWN = 8  # lines of a run that failed


def start(
    words: Sequence[str], log: Path, threads: int, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `densecl WORDS` in a process group of its own; it ends with this process.

    Args:
        words: of the command line.
        log: its output is appended there.
        threads: that it computes with.
        environment: further variables.

    Raises:
        RunError: the log cannot be written.
    """
    number = str(threads)
    variables = {**os.environ, "OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, **(environment or {})}
    command = [*RUN, *words]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            file.write(f"{MARK}{shlex.join(words)}\n".encode())
            file.flush()
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=variables, start_new_session=True
            )
    except OSError as error:
        raise write_error(log, error) from error


def stop(processes: Iterable[subprocess.Popen[bytes]], patience: float = PATIENCE) -> None:
    """Let processes write what is pending and end; those that do not are killed, with all they started."""
    alive = [process for process in processes if process.poll() is None]
    try:
        for process in alive:  # not its group: loaders are ended by their run, which would take it for a fault
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + patience
        for process in alive:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
    finally:  # a second Ctrl-C ends the patience
        for process in alive:
            release(process)


def release(process: subprocess.Popen[bytes]) -> int:
    """Kill what is left of a process and of all it started; its exit code."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        process.stdin.close()
    return process.wait()


def last_lines(log: Path, count: int = SHOWN) -> list[str]:
    """The end of what the last start in a log wrote."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    after = f"\n{text}".rpartition(f"\n{MARK}")[2]  # begins with the rest of the marked line
    lines = [line.rstrip() for line in after.splitlines()[1:] if line.strip()]
    return lines[-count:]


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM, and the end of the terminal, stop a sweep as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signals = [signal.SIGTERM, signal.SIGHUP]
    before = [signal.signal(number, interrupt) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def explain_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
