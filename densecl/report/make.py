"""The report of a folder of runs, with what only tensors tell: masks. Torch is imported where a run has some."""

import math
from collections.abc import Sequence
from pathlib import Path

from densecl.errors import DenseCLError, RecordError, RunError
from densecl.files import write_text
from densecl.records.published import Reported
from densecl.records.record import FILE_NAME, find_records
from densecl.report.masks import Layer, MaskFigures, Pair


def report(
    folder: str | Path, output: str | Path = "report.html", *, reported: Sequence[Reported] | None = None
) -> list[str]:
    """Write the report of all runs in and below `folder`.

    Args:
        folder: with runs, at any depth.
        output: the page to write.
        reported: numbers of papers that ours are compared with; those of the catalogue by default.

    Returns:
        What could not be shown, and why; the page says it too.

    Raises:
        RecordError: there is no such folder, or no record in it that can be read.
        RunError: the page cannot be written.
    """
    from densecl.data.places import cache_folder
    from densecl.report.page import render

    folder, output = Path(folder), Path(output)
    hint = "name a folder with runs, or start one with densecl run"
    if not folder.exists():
        raise RecordError(f"the folder {folder} does not exist", hint)
    if output.is_dir():
        raise RunError(f"cannot write {output}: it is a folder", "name a file with --output")
    found, faults = find_records(folder)
    if not found:
        what = f"none of its records can be read ({faults[0]})" if faults else f"it holds no {FILE_NAME}"
        raise RecordError(f"nothing to report in {folder}: {what}", hint)
    notes = [str(fault) for fault in faults]
    masks: dict[Path, MaskFigures] = {}
    for one in found:
        if one.record.tasks and any((one.path.parent / "masks").glob("*.safetensors")):
            try:
                masks[one.path] = mask_figures(one.path.parent)
            except DenseCLError as error:
                notes.append(str(error))
    text, left_out = render(
        found,
        notes,
        source=folder.name or str(folder),
        reported=published() if reported is None else reported,
        bank_folder=cache_folder() / "banks",
        mask_figures=masks,
    )
    write_text(output, text)
    return left_out


def published() -> list[Reported]:
    """The catalogue's numbers of papers."""
    from densecl.records.published import read_all
    from densecl.settings.catalogue import published_files

    return read_all(published_files(None))


def mask_figures(folder: Path) -> MaskFigures:
    """What the masks of a run set to 0, and how alike they are.

    Raises:
        RecordError, RunError, DataError: they are damaged, or their run's weights are gone.
    """
    from densecl.finished.inspect_masks import masks_of
    from densecl.masking.analysis import all_ones, similarities, zeroed, zeroed_in_all

    record, found = masks_of(folder)
    shares = {name: zeroed(masks) for name, masks in found.items()}
    first = next(iter(found.values()))
    layers = tuple(
        Layer(name, mask.numel(), tuple(shares[task][name] for task in found)) for name, mask in first.items()
    )
    names = {record.steps[0].task: all_ones(first), **found}  # the first task trained the network itself
    table = similarities(names)
    order = list(names)
    pairs = []
    for index, one in enumerate(order):
        for other in order[index + 1 :]:
            matching, kappa = table[one][other]
            pairs.append(Pair(one, other, matching, None if math.isnan(kappa) else kappa))
    whole = tuple(zeroed_in_all(masks) for masks in found.values())
    return MaskFigures(tuple(found), layers, whole, tuple(pairs))
