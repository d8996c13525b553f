"""`densecl inspect --masks`: weights that the masks of a run set to zero, and agreement of the masks of two tasks."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from densecl.errors import RecordError, RunError, UnknownNameError
from densecl.finished.trusted import read_run
from densecl.masking.analysis import all_ones, similarities, zeroed, zeroed_in_all
from densecl.masking.store import load_masks
from densecl.records.record import Record
from densecl.runner.checkpoint import weights_path

OWNERS = "owners"
ORIGINAL = ".parametrizations.weight.original"


def masks_of(folder: Path) -> tuple[Record, dict[str, dict[str, Tensor]]]:
    """The record of a run and its masks by task, in the order of the tasks; PackNet's owners as masks of each task.

    Raises:
        RecordError: it is no run of a sequence, or has no masks. DataError: masks are damaged, or of another network.
    """
    record = read_run(folder)
    shapes = _shapes(weights_path(folder, len(record.steps) - 1))
    files = {file.stem: file for file in sorted((folder / "masks").glob("*.safetensors"))}
    tasks = [step.task for step in record.steps]
    if OWNERS in files:
        owners = load_masks(files[OWNERS], shapes)
        return record, {
            task: {key: (value > 0) & (value <= k + 1) for key, value in owners.items()} for k, task in enumerate(tasks)
        }
    masks = {task: load_masks(files[task], shapes) for task in tasks if task in files}
    if not masks:
        raise RecordError(f"{folder} has no masks", f"{record.strategy} keeps none; piggyback and packnet do")
    return record, masks


def describe_masks(folder: Path, task: str | None = None) -> str:
    """The share of zeroed weights by layer and in all, then the agreement of every two tasks' masks, as text.

    Args:
        folder: of the run.
        task: the only one to show.

    Raises:
        UnknownNameError: the task has no masks. RecordError, DataError: see `masks_of`.
    """
    record, masks = masks_of(folder)
    if task is not None and task not in masks:
        raise UnknownNameError("task with masks", task, masks, "it was never learnt, or trained the network itself")
    shown = masks if task is None else {task: masks[task]}
    layers = {name: mask.numel() for name, mask in next(iter(shown.values())).items()}
    shares = {name: {**zeroed(of_task), "in all": zeroed_in_all(of_task)} for name, of_task in shown.items()}
    width = max(map(len, layers))
    lines = [f"{record.benchmark}  {record.strategy}  {record.backbone}  seed {record.seed}", ""]
    lines += ["weights set to 0, in %", f"{'layer':{width}}  {'weights':>9}  " + "  ".join(f"{n:>12}" for n in shown)]
    for layer, count in [*layers.items(), ("in all", sum(layers.values()))]:
        row = "  ".join(f"{100 * shares[name][layer]:12.1f}" for name in shown)
        lines.append(f"{layer:{width}}  {count:9,}  {row}")
    if task is None:
        lines += ["", "agreement of masks: share of equal values, and Cohen's kappa (0: as independent ones)"]
        pairs = agreements(record, masks)
        wide = max((len(f"{a}, {b}") for a, b, _, _ in pairs), default=0)
        for a, b, matching, kappa in pairs:
            lines.append(f"{f'{a}, {b}':{wide}}  {matching:.3f}  {'    -' if kappa is None else f'{kappa:5.3f}'}")
    return "\n".join(lines)


def agreements(record: Record, masks: dict[str, dict[str, Tensor]]) -> list[tuple[str, str, float, float | None]]:
    """(task, other task, share of equal values, Cohen's kappa) of every two tasks; kappa is None if undefined."""
    first = all_ones(next(iter(masks.values())))  # the first task trained the network itself
    table = similarities({record.steps[0].task: first, **masks})
    names = list(table)
    pairs = [(a, b, *table[a][b]) for k, a in enumerate(names) for b in names[k + 1 :]]
    return [(a, b, matching, None if kappa != kappa else kappa) for a, b, matching, kappa in pairs]


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
