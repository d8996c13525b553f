"""Signals that end a run or a sweep in good order."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from densecl.training import distributed

DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)  # a signal that is ignored, or that a host answers, stays so


@contextlib.contextmanager
def terminable(*signals: signal.Signals) -> Iterator[None]:
    """Let signals end a run like Ctrl-C: pending files are written and the way to go on is said.

    An error that follows a signal counts as the interrupt: a library that calls Python back may answer the
    KeyboardInterrupt with an exception of its own.
    """
    stopped = False

    def stop(number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True
        # torchrun sends it to all when one has died, and when it is ended itself
        if number == signal.SIGTERM and distributed.world() > 1:
            raise distributed.PeerError(
                "told to stop: another process of the run has died, or torchrun was ended",
                "the same command goes on from the last finished epoch",
            )
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()  # no other one may set handlers
    ours = [number for number in signals if main and signal.getsignal(number) in DEFAULTS]
    before = {number: signal.signal(number, stop) for number in ours}
    try:
        yield
    except distributed.PeerError:  # torchrun's signal comes while this process says why: it kills what stays
        before |= {number: signal.SIG_IGN for number in before if number == signal.SIGTERM}
        raise
    except Exception as error:
        if stopped:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
