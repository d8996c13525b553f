"""Predict photographs with the kept weights of a run: `densecl predict` and `densecl.predict`."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from densecl.data.decode import find_photos, read_photo
from densecl.errors import RunError, SettingError, UnknownNameError
from densecl.files import write_error
from densecl.finished.evaluate import finished_step, plan_of, restored
from densecl.finished.overlay import overlay, percent, shares
from densecl.records.record import Record
from densecl.runner.build import recorded_stream
from densecl.runner.checkpoint import weights_path
from densecl.runner.pictures import save_image, save_labels
from densecl.runner.plan import Plan
from densecl.runner.predictor import Predictor, Size

Images = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class Prediction(NamedTuple):
    """The prediction of an image.

    Attributes:
        source: the image's file.
        pixels: in the image's size: labels (H, W) uint8 as in `names`, or the picture (H, W, 3) uint8 RGB that a task
            without labels makes.
        names: of the labels; empty for pictures.
        shares: of the image's pixels by class name, the largest first; empty for pictures.
        note: what was left out of the file, such as "first of 12 frames".
        files: that were written.
    """

    source: Path
    pixels: np.ndarray
    names: tuple[str, ...]
    shares: dict[str, float]
    note: str
    files: tuple[Path, ...]


def predict(
    run: str | os.PathLike[str],
    images: Images,
    output: str | os.PathLike[str] | None = None,
    *,
    step: int | None = None,
    task: str | None = None,
    size: str | None = None,
    device: str | None = None,
    catalogue: Path | None = None,
    method: str | None = None,
) -> list[Prediction]:
    """Label, colour or paint images with the kept weights of a run; no data set is needed.

    Args:
        run: the folder of a run.
        images: files, or folders of them, without their subfolders.
        output: folder to write to: for segmentation `NAME.mask.png` (labels, in a palette of VOC's colours) and
            `NAME.overlay.png` (over the image, with a legend), for other tasks `NAME.TASK.png`. None: nothing is
            written.
        step: whose weights, by default the last finished one's.
        task: of a sequence of tasks, or of a method that is told the step (`step0`, `step1`, ...); by default the last
            one learnt.
        size: pixels of the shorter side that the network sees, or `full`; by default as the run was evaluated, without
            its crop.
        device: such as `cpu` or `cuda`.
        catalogue: folder with recipes of one's own.
        method: names the classes of a run that are not of the catalogue, such as `mine.py:Mine`: a record alone is not
            trusted to name code.

    Raises:
        DenseCLError: no such run, step, task or weights; an image that cannot be read. All images are opened before
            anything is written.
    """
    options = {"step": step, "task": task, "size": size, "device": device, "catalogue": catalogue, "method": method}
    return list(predictions(run, images, output, **options))  # type: ignore[arg-type]


def predictions(
    run: str | os.PathLike[str],
    images: Images,
    output: str | os.PathLike[str] | None = None,
    *,
    step: int | None = None,
    task: str | None = None,
    size: str | None = None,
    device: str | None = None,
    catalogue: Path | None = None,
    method: str | None = None,
) -> Iterator[Prediction]:
    """Like `predict`, one prediction after the other."""
    folder = Path(run)
    plan, record = plan_of(folder, device=device, catalogue=catalogue, method=method)
    step = finished_step(folder, record, step)
    index = _task_index(plan, record, step, task)
    own = plan.settings.stream.tasks[index].size if record.tasks else None
    seen = parse_size(size) if size is not None else own or plan.settings.evaluation.size
    _check_weights(folder, record, step)
    files = find_photos([images] if isinstance(images, str | os.PathLike) else images)
    if not files:
        raise SettingError("there is no image to predict", "name one or more, or a folder of them")
    labelled = not record.tasks or record.tasks[index].kind == "segmentation"
    kinds = ("mask", "overlay") if labelled else (record.tasks[index].name,)
    written = [tuple(Path(output) / f"{n}.{kind}.png" for kind in kinds) if output else () for n in unique_names(files)]
    _check_output(files, written)
    for file in files:
        read_photo(file)  # all of them, before anything is written
    if output is not None:
        _check_writable(Path(output))
    stream = recorded_stream(plan, record)
    loop = restored(plan, stream, folder, step, record.hash)
    loop.strategy.select_task(index)
    predictor = Predictor(loop, stream.tasks[index], stream.labels_of(index), seen)
    names = stream.names[index] if stream.kind == "tasks" else stream.class_names
    for file, paths in zip(files, written, strict=True):
        photo = read_photo(file)
        pixels = predictor(photo.pixels)
        counted = shares(pixels) if labelled else {}
        if paths and labelled:
            save_labels(pixels, paths[0])
            save_image(overlay(photo.pixels, pixels, names), paths[1])
        elif paths:
            save_image(Image.fromarray(pixels), paths[0])
        by_name = {names[label]: share for label, share in counted.items()}
        yield Prediction(file, pixels, names, by_name, photo.note, paths)


def describe(prediction: Prediction) -> str:
    """One line: the image, its classes, the files written."""
    note = f" ({prediction.note})" if prediction.note else ""
    content = ", ".join(f"{name} {percent(share)}" for name, share in prediction.shares.items())
    files = [str(prediction.files[0]), *(file.name for file in prediction.files[1:])] if prediction.files else []
    return f"{prediction.source}{note}: {content}{' -> ' if content and files else ''}{', '.join(files)}"


def parse_size(text: str) -> Size:
    """`full`, or the pixels of the shorter side.

    Raises:
        SettingError: anything else.
    """
    if text == "full":
        return "full"
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 8192:
        raise SettingError(f"unknown size '{text}'", "give the pixels of the shorter side, 1 to 8192, or full")
    return int(text)


def unique_names(files: Sequence[Path]) -> list[str]:
    """A name for the output of each file: its stem, with a number where another file has the same one."""
    stems = {file.stem.casefold() for file in files}  # some file systems know no case
    taken: set[str] = set()
    names = []
    for file in files:
        name, number = file.stem, 1
        while name.casefold() in taken or (number > 1 and name.casefold() in stems):
            number += 1
            name = f"{file.stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _task_index(plan: Plan, record: Record, step: int, task: str | None) -> int:
    """The number of the task to predict."""
    if not record.tasks and not plan.method.told:
        if task is not None:
            raise SettingError(
                f"{record.strategy} on {record.benchmark} has one network for all classes, and no task '{task}'",
                "leave out --task; --step chooses whose weights are used",
            )
        return step
    names = [task_record.name for task_record in record.tasks] or [f"step{k}" for k in range(len(record.steps))]
    learnt = names[: step + 1]
    if task is not None and task not in learnt:
        raise UnknownNameError("task", task, learnt, f"it was not learnt by step {step}")
    return step if task is None else learnt.index(task)


def _check_weights(folder: Path, record: Record, step: int) -> None:
    """Refuse a step whose weights are gone, naming those that are there."""
    available = [str(k) for k in range(len(record.steps)) if weights_path(folder, k).is_file()]
    if str(step) not in available:
        advice = f"it has those of step {', '.join(available)}: --step {available[-1]}" if available else "run it again"
        raise RunError(f"{folder} has no weights of step {step}", advice)


def _check_output(files: Sequence[Path], written: Sequence[tuple[Path, ...]]) -> None:
    """Refuse to write over an image that is to be read."""
    sources = {file.resolve() for file in files}
    for path in (path for paths in written for path in paths):
        if path.resolve() in sources:
            raise SettingError(f"{path} is one of the images, and would be overwritten", "choose another -o")


def _check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written, before a network is loaded."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise write_error(folder, error) from error
