"""Damages a file of every kind at random and shows what ends in a traceback or in unclear words; also `make fuzz`."""

import contextlib
import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from broken_files import badly_said
from broken_targets import TARGETS, Target
from densecl.errors import DenseCLError

LONGEST = 60  # seconds for one input
FEW = 500  # inputs of a target that takes long
KEPT = 20  # faults of a target with their inputs
MEMORY = 12 * 2**30  # bytes of addresses


@dataclass
class Tally:
    """Counts of one target, and what went wrong: the end of a traceback, or a message in unclear words."""

    inputs: int = 0
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class TooSlowError(BaseException):
    """Raised in the middle of an input; readers catch TimeoutError, which is an OSError."""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """End an input that takes too long."""

    def stop(*_: Any) -> None:
        raise TooSlowError(f"took more than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def search(
    aim: Target, tally: Tally, seconds: float, seed: int, keep: Path | None = None, inputs: int | None = None
) -> None:
    """Damage a file for some seconds, at most so many times; inputs with a new fault are kept in a folder.

    Undamaged it must be taken.
    """
    aim.read()
    good, rng, end = aim.path.read_bytes(), random.Random(seed), time.monotonic() + seconds
    first = tally.inputs
    while time.monotonic() < end and (inputs is None or tally.inputs < first + inputs):
        tally.inputs += 1
        bad = rng.choice(aim.damages)(good, rng)
        aim.path.write_bytes(bad)
        fault = ""
        try:
            with _limited():
                aim.read()
        except DenseCLError as error:
            tally.refused += 1
            fault = f"said: {error}" if badly_said(str(error), aim.path.name if aim.named else "") else ""
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            fault = "".join(traceback.format_exception(error)[-3:])
        tally.faults.update([fault] if fault else [])
        if keep and tally.faults[fault] == 1 and len(tally.faults) <= KEPT:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{len(tally.faults)}-{aim.path.name}").write_bytes(bad)
            (keep / f"{len(tally.faults)}.txt").write_text(fault)
    aim.path.write_bytes(good)


def hunt(names: Sequence[str], place: Path, seconds: float, seed: int) -> dict[str, Tally]:
    """Search all targets in equal times, then those that had few inputs."""
    aims, tallies = dict[str, Target](), dict[str, Tally]()
    for name in names:
        (place / name).mkdir()
        aims[name], tallies[name] = TARGETS[name](place / name), Tally()
        search(aims[name], tallies[name], seconds / 2 / len(names), seed, place / "faults" / name)
    slow = [name for name in names if tallies[name].inputs < FEW]
    for name in slow:
        search(aims[name], tallies[name], seconds / 2 / len(slow), seed + 1, place / "faults" / name)
    return tallies


if __name__ == "__main__":
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 2**32
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    place = Path(mkdtemp(prefix="densecl-fuzz-"))
    os.environ["DENSECL_CACHE"] = str(place / "cache")
    print(f"seed {seed}; inputs with faults in {place / 'faults'}", flush=True)
    tallies = hunt(sys.argv[3:] or list(TARGETS), place, 60 * float(sys.argv[1]), seed)
    lines = {name: (tally.inputs, tally.refused, len(tally.faults)) for name, tally in tallies.items()}
    inputs, refused, faults = (sum(counts) for counts in zip(*lines.values(), strict=True))
    lines["all"] = (inputs, refused, faults)
    for name, counts in lines.items():
        print(f"{name:24}" + " {:9,} inputs {:9,} refused {:5} kinds of fault".format(*counts))
    sys.exit(bool(faults))
