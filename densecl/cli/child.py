"""One run of a sweep: `python -m densecl.cli.child run --benchmark ...`, as `densecl run ...` but for its end.

Its standard input is a pipe that the process beside it holds (`densecl.sweep.launch`). When that is gone, however it
went, the pipe closes and the run stops as after Ctrl-C: no run is left behind, none trains what nobody waits for.
"""

import os
import signal
import sys
import threading
import time

from densecl.cli import main

PATIENCE = 30.0  # seconds for a run to write what is pending


def stop_when_left(descriptor: int) -> None:
    """Stop this process when the other end of the pipe is closed."""
    while os.read(descriptor, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    # SLURM announces the end of a job's time by it, to all processes; the one that started this one answers
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    threading.Thread(target=stop_when_left, args=(sys.stdin.fileno(),), daemon=True).start()
    sys.argv = ["densecl", *sys.argv[1:]]  # what a stopped run names as the way to go on
    sys.exit(main())
