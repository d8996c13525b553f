"""Signals end a run like Ctrl-C, whatever a library makes of the interrupt."""

import os
import signal

import pytest
from pydantic import BaseModel, field_serializer

from densecl.runner.signals import terminable
from densecl.training.distributed import PeerError


class Called(BaseModel):
    """A model whose serializer is stopped by a signal: pydantic answers with an error of its own."""

    value: int = 0

    @field_serializer("value")
    def stopped(self, value: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return value


@pytest.fixture(autouse=True)
def _default_interrupt():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_a_library_wraps_is_an_interrupt():
    with pytest.raises(KeyboardInterrupt), terminable(signal.SIGINT):
        Called().model_dump()


def test_an_error_without_a_signal_stays_what_it_is():
    with pytest.raises(ValueError, match="own"), terminable(signal.SIGINT, signal.SIGTERM):
        raise ValueError("own")


def test_while_a_process_says_that_another_has_died_only_sigterm_is_ignored():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(PeerError), terminable(signal.SIGINT, signal.SIGTERM):
            raise PeerError("died", "start again")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with terminable(signal.SIGHUP):
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
