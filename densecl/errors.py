"""The errors a user can meet. Each message names the file, key or value at fault; `hint` says what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class DenseCLError(Exception):
    """Bad input of any kind. The command line prints it as one line and exits with code 2."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(f"{message}. {hint}" if hint else _own_words(message))


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without a full stop; in words where it has none."""
    text = str(error).strip().splitlines()
    return (text[0] if text else "no reason is given").rstrip(".")


def _own_words(message: str) -> str:
    """The message alone: a worker of a data loader hands over its whole traceback, which ends with it."""
    if not (message.startswith("Caught ") and "DataLoader worker" in message):
        return message
    return message.strip().splitlines()[-1].partition(": ")[2]


class SpecError(DenseCLError):
    """Text that does not follow the grammar `name(key=value, ...)+plugin(...)`."""


class UnknownNameError(DenseCLError):
    """A benchmark, strategy, backbone or key that does not exist."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = ""):
        known = sorted(known)
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        guess = f"did you mean '{near[0]}'? " if near else ""
        advice = f"{guess}known: {', '.join(known) or 'none'}" + (f"; {hint}" if hint else "")
        super().__init__(f"unknown {kind} '{name}'", advice)


class SettingError(DenseCLError):
    """A setting of a wrong type or value, or settings that exclude each other."""


class RecipeError(DenseCLError):
    """A recipe file that cannot be used; the message names file and key."""


class DataError(DenseCLError):
    """Data that is missing, broken or illegal; the message names the path."""


class RunError(DenseCLError):
    """A run that cannot go on: non-finite loss, full disk, a run folder in use."""


class RecordError(DenseCLError):
    """A `result.json` that cannot be read."""
