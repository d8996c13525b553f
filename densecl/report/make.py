"""`densecl report`: the page of a folder of runs. Torch is imported only if a run has masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from densecl.errors import DenseCLError, RunError
from densecl.files import write_text

if TYPE_CHECKING:
    from densecl.finished.inspect_masks import MaskFigures
    from densecl.records.published import Reported
    from densecl.report.album import Fault


def report(
    folder: str | Path,
    output: str | Path = "report.html",
    *,
    reported: "Sequence[Reported] | None" = None,
    benchmark: Sequence[str] = (),
    filter: Sequence[str] = (),
    group: str | None = None,
    sort: str | None = None,
    columns: Sequence[str] = (),
    rows: int | None = None,
    leaderboard: bool = False,
) -> list[str]:
    """Write the report of all runs in and below `folder`; return what could not be shown, which the page says too.

    `reported` are numbers of papers to compare with, by default those of the catalogue. `benchmark` shows these alone;
    `filter`, `group`, `sort` and `columns` choose as in `densecl.table`.
    `leaderboard` writes the rankings alone, to be sorted and filtered, also of folders directly in `folder` that are
    kept apart. `rows` of each benchmark have figures and details; without it as many as make a page in seconds.

    Raises:
        RecordError: there is no such folder, no record in it that can be read, or none that meets the conditions.
        RunError: the page cannot be written.
    """
    folder, output = Path(folder), Path(output)
    if output.is_dir():
        raise RunError(f"cannot write {output}: it is a folder", "name a file with --output")
    from densecl.data.places import cache_folder
    from densecl.records.published import read_all
    from densecl.report import leaderboard as board
    from densecl.report.page import render
    from densecl.settings.catalogue import published_files
    from densecl.tables.choose import Choice, chosen
    from densecl.tables.compare import read_runs

    notes: list[str] = []
    runs = read_runs(folder, notes.append, benchmark, apart=leaderboard)
    kept = {id(record) for record in chosen([run.record for run in runs], filter)}
    runs = [run for run in runs if id(run.record) in kept]
    choice, source = Choice(filter, group, sort, columns), folder.resolve().name
    if leaderboard:
        text, left_out = board.render(runs, notes, source=source, choice=choice)
        write_text(output, text)
        return left_out
    text, left_out = render(
        runs,
        notes,
        source=source,
        reported=read_all(published_files()) if reported is None else reported,
        bank_folder=cache_folder() / "banks",
        masks_of=_masks_of,
        most=rows,
        choice=choice,
    )
    write_text(output, text)
    return left_out


def _masks_of(path: Path, fault: "Fault") -> "MaskFigures | None":
    """Figures of the masks of a record's run, if it has some that can be read."""
    if not any((path.parent / "masks").glob("*.safetensors")):
        return None
    from densecl.finished.inspect_masks import mask_figures

    try:
        return mask_figures(path.parent)
    except DenseCLError as error:
        fault(str(error))
        return None
