"""Is everything here that a run needs? Looks, without the network, and changes nothing."""

import contextlib
import importlib
import io
import warnings
from collections.abc import Iterable
from pathlib import Path

from densecl.about.doctor.finding import Finding, first_line

__all__ = ["Finding", "examine", "runnable"]


def examine(data: Path | None = None, catalogue: Path | None = None) -> list[Finding]:
    """All there is to say: packages, devices, recipes, data sets, weights, folders.

    A part that cannot be looked at is a finding; nothing is raised.

    Args:
        data: folder of data sets, as for a run.
        catalogue: folder with recipes of one's own.
    """
    looks: list[tuple[str, str, str, tuple[Path | None, ...]]] = [
        ("packages", "software", "packages", ()),
        ("extras", "software", "extras", ()),
        ("devices", "machine", "devices", ()),
        ("recipes", "material", "recipes", (catalogue,)),
        ("data sets", "material", "data_sets", (data, catalogue)),
        ("weights", "material", "weights", (catalogue,)),
        ("folders", "machine", "folders", (data,)),
    ]
    found: list[Finding] = []
    for part, module, function, arguments in looks:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:  # whatever is broken here, the rest can still be looked at; an import may be what breaks
                found += getattr(importlib.import_module(f"{__name__}.{module}"), function)(*arguments)
            except Exception as error:
                text = f"cannot be looked at: {type(error).__name__}: {first_line(error)}"
                found.append(Finding("problem", part, text, "see what is said of the other parts"))
    return found


def runnable(findings: Iterable[Finding]) -> bool:
    """Whether a run can be started."""
    return not any(finding.level == "error" for finding in findings)
