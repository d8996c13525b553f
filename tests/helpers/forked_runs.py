"""Real runs that are forks of this process: they need not import everything again, which takes longer than they do."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar


class Fork:
    """As much of a `Popen` as sweeps use."""

    held: ClassVar[set[int]] = set()  # ends of pipes that a fork must not keep open for its siblings

    def __init__(self, words, log: Path, environment):
        there, here = os.pipe()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(f"$ densecl {' '.join(words)}\n")
        Fork.held.add(here)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid, self.returncode = os.fork(), None
        if self.pid == 0:
            _run(words, log, there, environment or {})
        os.close(there)
        self.stdin = self
        self._pipe = here

    def close(self):
        """Of the pipe, which stands for the standard input."""
        if self._pipe in Fork.held:
            Fork.held.remove(self._pipe)
            os.close(self._pipe)

    def poll(self):
        if self.returncode is None:
            number, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if number else None
        return self.returncode

    def wait(self, timeout=None):
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("fork", timeout or 0)
            time.sleep(0.005)
        return self.returncode

    def terminate(self):
        os.kill(self.pid, signal.SIGTERM)


def _run(words, log, pipe, environment):
    """What the fork does, as `densecl.cli.child` does it; never returns."""
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in Fork.held:
            os.close(number)
        os.environ.update(environment)
        file = log.open("a", buffering=1)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        from densecl.cli import main
        from densecl.cli.child import stop_when_left

        threading.Thread(target=stop_when_left, args=(pipe,), daemon=True).start()
        code = main(words)
        file.flush()
    finally:
        os._exit(code)


def start(words, log, threads, environment=None):
    """In place of `densecl.sweep.launch.start`."""
    return Fork(words, log, environment)
