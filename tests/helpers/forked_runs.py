"""Real runs that are forks of this process: they need not import everything again, which takes longer than they do."""

import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path

from densecl.sweep.launch import MARK, Launch, end_with


class Executor:
    """As much of submitit's executor as the local engine uses."""

    def __init__(self, folder):
        self.folder = folder

    def update_parameters(self, **parameters):
        self.parameters = parameters

    def submit(self, launch: Launch):
        sys.stdout.flush()
        sys.stderr.flush()
        number = os.fork()
        if number == 0:
            _run(launch)
        return Fork(number)


class Fork:
    """As much of submitit's job as the local engine uses."""

    def __init__(self, number: int):
        self.number, self.code = number, None

    def done(self):
        if self.code is None:
            number, status = os.waitpid(self.number, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if number else None
        return self.code is not None

    def result(self):
        return self.code


def _run(launch: Launch):
    """Do the work of a launched process in this one; never returns."""
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for place in Path("/proc/self/fd").iterdir():  # the sweep's end of the pipe, which must end with the sweep
            if place.is_fifo() and place.resolve() == launch.sweep:
                os.close(int(place.name))
        os.environ.update({name: value for name, value in launch.variables.items() if value is not None})
        launch.log.parent.mkdir(parents=True, exist_ok=True)
        file = launch.log.open("a", buffering=1)
        file.write(f"{MARK}{' '.join(launch.words)}\n")
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        from densecl.cli import main

        terminate = partial(os.kill, os.getpid(), signal.SIGTERM)
        threading.Thread(target=end_with, args=(launch.sweep, terminate), daemon=True).start()
        code = main(launch.words)
        file.flush()
    finally:
        os._exit(code)
