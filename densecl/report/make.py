"""`densecl report`: the page of a folder of runs. Torch is imported only if a run has masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from densecl.errors import DenseCLError, RecordError, RunError
from densecl.files import write_text

if TYPE_CHECKING:
    from densecl.finished.inspect_masks import MaskFigures
    from densecl.records.published import Reported

HINT = "name a folder with runs, or start one with densecl run"


def report(
    folder: str | Path, output: str | Path = "report.html", *, reported: "Sequence[Reported] | None" = None
) -> list[str]:
    """Write the report of all runs in and below `folder`.

    Args:
        folder: with runs, at any depth.
        output: the page to write.
        reported: numbers of papers to compare with; by default those of the catalogue.

    Returns:
        What could not be shown, and why; the page says it too.

    Raises:
        RecordError: there is no such folder, or no record in it that can be read.
        RunError: the page cannot be written.
    """
    folder, output = Path(folder), Path(output)
    if not folder.exists():
        raise RecordError(f"the folder {folder} does not exist", HINT)
    if output.is_dir():
        raise RunError(f"cannot write {output}: it is a folder", "name a file with --output")
    from densecl.data.places import cache_folder
    from densecl.records.published import read_all
    from densecl.records.record import FILE_NAME, find_records
    from densecl.report.page import render
    from densecl.settings.catalogue import published_files

    runs, faults = find_records(folder)
    if not runs:
        what = f"none of its records can be read ({faults[0]})" if faults else f"it holds no {FILE_NAME}"
        raise RecordError(f"nothing to report in {folder}: {what}", HINT)
    notes = [str(fault) for fault in faults]
    masks: dict[Path, MaskFigures] = {}
    for path, record in runs:
        if record.tasks and any((path.parent / "masks").glob("*.safetensors")):
            from densecl.finished.inspect_masks import mask_figures

            try:
                masks[path] = mask_figures(path.parent)
            except DenseCLError as error:
                notes.append(str(error))
    text, left_out = render(
        runs,
        notes,
        source=folder.name or str(folder),
        reported=read_all(published_files()) if reported is None else reported,
        bank_folder=cache_folder() / "banks",
        figures=masks,
    )
    write_text(output, text)
    return left_out
