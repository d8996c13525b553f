"""`densecl inspect --masks`: weights that the masks of a run set to zero, and agreement of the masks of two tasks."""

import itertools
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open
from torch import Tensor

from densecl.errors import RecordError, RunError, UnknownNameError
from densecl.finished.trusted import read_run
from densecl.masking.analysis import all_ones, similarity, zeroed, zeroed_in_all
from densecl.masking.store import load_masks
from densecl.records.record import Record
from densecl.runner.checkpoint import AGAIN, weights_path
from densecl.tensors import check_bound

OWNERS = "owners"
ORIGINAL = ".parametrizations.weight.original"


class MaskFigures(NamedTuple):
    """The masks of one run, in numbers."""

    record: Record
    tasks: tuple[str, ...]
    layers: tuple[tuple[str, int, tuple[float, ...]], ...]  # name, weights, zeroed share of each task
    whole: tuple[int, tuple[float, ...]]  # the same of all layers together
    pairs: tuple[tuple[str, str, float, float | None], ...]  # two tasks, share of equal values, Cohen's kappa


def masks_of(folder: Path) -> tuple[Record, dict[str, dict[str, Tensor]]]:
    """The record of a run and its masks by task, in the order of the tasks; PackNet's owners as masks of each task.

    Raises:
        RecordError: it is no run of a sequence, or has no masks. DataError: masks are damaged, or of another network.
    """
    record = read_run(folder)
    shapes = _shapes(folder, record)
    files = {file.stem: file for file in sorted((folder / "masks").glob("*.safetensors"))}
    tasks = [step.task for step in record.steps]
    if OWNERS in files:
        owners = load_masks(files[OWNERS], shapes, run=record.hash, note=OWNERS)
        shares = ({key: (value > 0) & (value <= k + 1) for key, value in owners.items()} for k in range(len(tasks)))
        return record, dict(zip(tasks, shares, strict=True))
    masks = {task: load_masks(files[task], shapes, run=record.hash, note=task) for task in tasks if task in files}
    if not masks:
        raise RecordError(f"{folder} has no masks", f"{record.strategy} keeps none; piggyback, packnet and wsn do")
    return record, masks


def mask_figures(folder: Path) -> MaskFigures:
    """The figures of a run's masks; raises as `masks_of`."""
    record, masks = masks_of(folder)
    shares = [zeroed(of_task) for of_task in masks.values()]
    counts = {name: mask.numel() for name, mask in next(iter(masks.values())).items()}
    layers = [(name, count, tuple(share[name] for share in shares)) for name, count in counts.items()]
    whole = (sum(counts.values()), tuple(map(zeroed_in_all, masks.values())))
    first = all_ones(next(iter(masks.values())))  # the first task trained the network itself
    tasks = {record.steps[0].task: first, **masks}
    pairs = [(a, b, *similarity(tasks[a], tasks[b])) for a, b in itertools.combinations(tasks, 2)]
    defined = [(a, b, matching, None if kappa != kappa else kappa) for a, b, matching, kappa in pairs]
    return MaskFigures(record, tuple(masks), tuple(layers), whole, tuple(defined))


def describe_masks(folder: Path, task: str | None = None) -> str:
    """The share of zeroed weights by layer and in all, then the agreement of every two tasks' masks, as text.

    Raises:
        UnknownNameError: `task`, the only one to show, has no masks. RecordError, DataError: see `masks_of`.
    """
    record, tasks, layers, whole, pairs = mask_figures(folder)
    if task is not None and task not in tasks:
        raise UnknownNameError("task with masks", task, tasks, "it was never learnt, or trained the network itself")
    shown = [k for k, name in enumerate(tasks) if task in (None, name)]
    width = max(len(name) for name, _, _ in layers)
    lines = [f"{record.benchmark}  {record.strategy}  {record.backbone}  seed {record.seed}", ""]
    heading = "  ".join(f"{tasks[k]:>12}" for k in shown)
    lines += ["weights set to 0, in %", f"{'layer':{width}}  {'weights':>9}  {heading}"]
    for name, count, shares in (*layers, ("in all", *whole)):
        lines.append(f"{name:{width}}  {count:9,}  " + "  ".join(f"{100 * shares[k]:12.1f}" for k in shown))
    if task is None:
        lines += ["", "agreement of masks: share of equal values, and Cohen's kappa (0: as independent ones)"]
        wide = max((len(f"{a}, {b}") for a, b, _, _ in pairs), default=0)
        for a, b, matching, kappa in pairs:
            lines.append(f"{f'{a}, {b}':{wide}}  {matching:.3f}  {'    -' if kappa is None else f'{kappa:5.3f}'}")
    return "\n".join(lines)


def _shapes(folder: Path, record: Record) -> dict[str, tuple[int, ...]]:
    """Shapes of the masked weights in a run's last kept weights."""
    step = len(record.steps) - 1
    path = weights_path(folder, step)
    if not path.is_file():
        raise RunError(f"there are no weights at {path}", AGAIN)
    with safe_open(path, framework="pt") as file:
        bound = {"kind": "weights", "run": record.hash, "step": str(step)}
        check_bound(path, file.metadata() or {}, bound)
        names = [name for name in file.keys() if name.endswith(ORIGINAL)]  # noqa: SIM118 (not a dict)
        return {f"{name.removesuffix(ORIGINAL)}.weight": tuple(file.get_slice(name).get_shape()) for name in names}
