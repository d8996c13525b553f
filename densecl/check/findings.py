"""Findings: faults of what is tried, in words, with the line of the user's file where they arise."""

import contextlib
import inspect
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from densecl.errors import DenseCLError
from densecl.settings.catalogue import source_hash
from densecl.settings.faults import one_line


class Finding(Exception):
    """A fault of what is tried, in words."""


@contextlib.contextmanager
def trying(stage: str, *classes: type) -> Iterator[None]:
    """Make a finding of any error: when it arose, the last line in the user's file of a class, and the error."""
    try:
        yield
    except Finding:
        raise
    except Exception as error:
        files = {inspect.getfile(cls) for cls in classes if source_hash(cls)}
        frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        lines = [f"in {Path(file).name}:{line}, " for file, line in frames if file in files]
        kind = "" if isinstance(error, DenseCLError) else f"{type(error).__name__}: "
        raise Finding(f"{stage}: {lines[-1] if lines else ''}{kind}{one_line(error)}") from error


@contextlib.contextmanager
def added_to(findings: list[str]) -> Iterator[None]:
    """Add a finding that is raised to a list."""
    try:
        yield
    except Finding as finding:
        findings.append(str(finding))


def described(value: Any) -> str:
    """A value in a finding: a tensor by shape and type, anything else by its class."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"a tensor of shape {tuple(value.shape)} and type {str(value.dtype).removeprefix('torch.')}"
