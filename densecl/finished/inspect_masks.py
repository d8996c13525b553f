"""What the masks of a run say: how much of each layer they set to zero, and how alike those of two tasks are."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from densecl.errors import RecordError, RunError, UnknownNameError
from densecl.masking.analysis import all_ones, similarities, zeroed, zeroed_in_all
from densecl.masking.store import load_masks
from densecl.records.record import FILE_NAME, Record, read_record
from densecl.runner.checkpoint import weights_path

OWNERS = "owners"
ORIGINAL = ".parametrizations.weight.original"


def masks_of(folder: Path) -> tuple[Record, dict[str, dict[str, Tensor]]]:
    """The record of a run and its masks by task, in the order of the tasks; PackNet's owners as masks of each task.

    Raises:
        RecordError: it is no run of a sequence, or has no masks. DataError: masks are damaged, or of another network.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise RecordError(f"{folder} is not a run: it has no {FILE_NAME}", "name the folder of one run")
    record = read_record(path)
    shapes = _shapes(weights_path(folder, len(record.steps) - 1))
    files = {file.stem: file for file in sorted((folder / "masks").glob("*.safetensors"))}
    if OWNERS in files:
        owners = load_masks(files[OWNERS], shapes)
        names = [step.task for step in record.steps]
        return record, {
            name: {key: (value > 0) & (value <= k + 1) for key, value in owners.items()} for k, name in enumerate(names)
        }
    found = {step.task: load_masks(files[step.task], shapes) for step in record.steps if step.task in files}
    if not found:
        raise RecordError(f"{folder} has no masks", f"{record.strategy} keeps none; piggyback and packnet do")
    return record, found


def describe_masks(folder: Path, task: str | None = None) -> str:
    """Zeroed share by layer and in all, then the agreement of every two tasks, as text.

    Args:
        folder: of the run.
        task: only this one's shares.

    Raises:
        UnknownNameError: the task has no masks. RecordError, DataError: see `masks_of`.
    """
    record, found = masks_of(folder)
    if task is not None and task not in found:
        raise UnknownNameError("task with masks", task, found, "it was never learnt, or trained the network itself")
    shown = {task: found[task]} if task is not None else found
    lines = [
        f"{record.benchmark}  {record.strategy}  {record.backbone}  seed {record.seed}",
        "",
        "weights set to 0, in %",
    ]
    layers = list(next(iter(shown.values())))
    width = max(len(layer) for layer in layers)
    lines.append(f"{'layer':{width}}  {'weights':>9}  " + "  ".join(f"{name:>12}" for name in shown))
    shares = {name: zeroed(masks) for name, masks in shown.items()}
    for layer in layers:
        count = next(iter(shown.values()))[layer].numel()
        row = "  ".join(f"{100 * shares[name][layer]:12.1f}" for name in shown)
        lines.append(f"{layer:{width}}  {count:9,}  {row}")
    total = sum(mask.numel() for mask in next(iter(shown.values())).values())
    whole = "  ".join(f"{100 * zeroed_in_all(masks):12.1f}" for masks in shown.values())
    lines.append(f"{'in all':{width}}  {total:9,}  {whole}")
    if task is None:
        lines += ["", "agreement of masks: share of equal values, and Cohen's kappa (0: as independent ones)"]
        names = {record.steps[0].task: all_ones(next(iter(found.values()))), **found}
        table = similarities(names)
        pairs = [(a, b) for i, a in enumerate(names) for b in list(names)[i + 1 :]]
        wide = max(len(f"{a}, {b}") for a, b in pairs) if pairs else 0
        for a, b in pairs:
            one = table[a][b]
            kappa = "    -" if one.kappa != one.kappa else f"{one.kappa:5.3f}"
            lines.append(f"{f'{a}, {b}':{wide}}  {one.matching:.3f}  {kappa}")
    return "\n".join(lines)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the masked weights in a run's kept weights."""
    if not path.is_file():
        raise RunError(f"there are no weights at {path}", "the run did not finish a step; run it again")
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.endswith(ORIGINAL)]  # noqa: SIM118 (not a dict)
        return {
            f"{name.removesuffix(ORIGINAL)}.weight": tuple(torch.Size(file.get_slice(name).get_shape()))
            for name in names
        }
