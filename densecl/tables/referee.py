"""A folder of runs -> what a referee asks: `densecl table --honest`, `--stability`, `--anatomy`, `--layout field`."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from densecl.errors import SettingError
from densecl.records.record import Record
from densecl.tables import anatomy, field, honest, stability
from densecl.tables.choose import chosen
from densecl.tables.compare import read_runs
from densecl.tables.listing import Listing
from densecl.tables.provenance import refuse

OPTIONS = {  # view -> the option of `densecl table`
    "honest": "--honest",
    "stability": "--stability",
    "anatomy": "--anatomy",
    "field": "--layout field",
}


def referee(
    folder: Path,
    view: str,
    *,
    benchmark: Sequence[str] = (),
    filter: Sequence[str] = (),
    group: str | None = None,
    mix: bool = False,
    against: Sequence[Path] = (),
    catalogue: Path | None = None,
    complain: Callable[[str], None] | None = None,
) -> list[Listing]:
    """A listing for each benchmark of classes that arrive over time, or one of all of them.

    `view` is honest, what each row has and lacks; stability, how the order of methods changes with the rules; anatomy,
    what old classes lost by features and by the head, of runs that were probed; or field, one listing of all methods on
    all benchmarks, `against` papers' numbers. For the other options see `densecl.tables.compare.table`.

    Raises:
        SettingError: only sequences of tasks were run.
        RecordError: see `stability` and `anatomy.summary`.
    """
    tell = complain or warnings.warn
    files = read_runs(folder, lambda fault: tell(f"left out: {fault}"), benchmark)
    folders = {id(record): str(path.parent) for path, record in files}
    records = [record for record in chosen([run.record for run in files], filter) if not record.tasks]
    if not records:
        raise SettingError(
            f"{OPTIONS[view]} is for classes that arrive over time",
            f"{folder} holds no run of them, or --filter leaves none",
        )

    def where(record: Record) -> str:
        return folders[id(record)]

    if not mix:
        refuse(records, where, stability.OVER if view == "stability" else (honest.ORDER,))
    if view == "field":
        from densecl.records.published import read_all

        return [field.field(records, read_all(against), catalogue)]
    if view == "anatomy":
        if found := anatomy.summary(records, where):
            return found
        raise SettingError(f"no run in {folder} was probed", "densecl probe RUN does, where its weights were kept")
    if view == "honest":
        return [honest.listing(*examined) for examined in honest.examine(records)]
    return [stability.listing(found) for found in stability.stability(records, where, group)]
