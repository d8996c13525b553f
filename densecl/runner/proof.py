"""Proofs of `densecl check` that the first step of a user's method is plain, kept in the cache.

A proof holds for what the first step can reach of the class, and for the hyper-parameters named there. Losing one costs
time alone: the first step is then trained by the method itself, to the same bits.
"""

import contextlib
import hashlib
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING

from densecl.data.places import cache_folder
from densecl.errors import DenseCLError
from densecl.files import write_text
from densecl.runner.methods import Method, Part

if TYPE_CHECKING:
    from densecl.settings.reached import Reached


def note(part: Part, code: str) -> None:
    """Keep that the first step of a user's class is plain; `code` is the hash of the package."""
    source = _reached(part)
    with contextlib.suppress(DenseCLError):  # a full cache: it is proved again
        write_text(_place(part, source, code), f"{part.name}\n")
        write_text(_last(part), json.dumps({"reached": source.digest, "code": code}) + "\n")


def proved(part: Part, code: str) -> bool:
    """True if the first step of a user's class was found to be plain."""
    return _can_be(part) and _place(part, _reached(part), code).is_file()


def advice(method: Method, code: str) -> str:
    """Say why a method of the user's own trains a first step of its own, and what to do; empty where it does not."""
    for part in method.parts:
        if not _can_be(part) or proved(part, code):
            continue
        before, source = {}, _reached(part)
        with contextlib.suppress(OSError, ValueError):
            before = json.loads(_last(part).read_text(encoding="utf-8"))
        reason = f"`densecl check` has not shown that the first step of {part.name} is plain"
        if before:
            changed = "densecl" if before.get("code") != code else f"{part.name}'s code for the first step"
            reason = f"{changed} has changed since `densecl check` showed that it is plain"
            if before == {"reached": source.digest, "code": code}:
                reason = f"`densecl check` showed that the first step of {part.name} is plain with other values"
        given = ", ".join(f"{key}={value}" for key, value in part.values.items())
        call = f"{part.reference}({given})" if given else part.reference
        return f"step 0 is not shared with other methods: {reason}; `densecl check '{call}'` looks again"
    return ""


def _can_be(part: Part) -> bool:
    """True for a class in a file of the user's."""
    if not part.source or part.stock:
        return False
    from densecl.settings.source import file_of_class

    return file_of_class(part.cls) is not None


def _reached(part: Part) -> "Reached":
    from densecl.settings.reached import reached

    return reached(part.cls)


def _place(part: Part, source: "Reached", code: str) -> Path:
    values = {key: value for key, value in part.resolved().items() if source.names is None or key in source.names}
    content = json.dumps([source.digest, part.cls.__name__, values, code], sort_keys=True, default=str)
    return cache_folder() / "plain" / f"{hashlib.sha256(content.encode()).hexdigest()[:24]}.proof"


def _last(part: Part) -> Path:
    name = f"{Path(inspect.getfile(part.cls)).resolve()}:{part.cls.__name__}"
    return cache_folder() / "plain" / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.last"
