"""`densecl predict`: what a run's kept weights make of photographs."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from densecl.data.photo import find_photos, read_photo
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

MASK, OVERLAY = "mask", "overlay"
Images = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class Prediction(NamedTuple):
    """What a run says of an image.

    Attributes:
        source: the image's file.
        pixels: as large as the image: labels (H, W) uint8 as in `names`, or of a task whose outputs are values the
            picture (H, W, 3) uint8 RGB.
        names: of the labels; empty for pictures.
        shares: of the image's pixels by class name, the largest first; empty for pictures.
        note: what was left out of the file, such as "first of 12 frames".
        files: what was written.
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
) -> list[Prediction]:
    """Label, colour or paint images with the weights that a run has kept; no data set is needed.

    Args:
        run: the folder of a run.
        images: files, or folders of them; those are not searched any deeper.
        output: folder to write to: of segmentation `NAME.mask.png` (labels, in a palette of VOC's colours) and
            `NAME.overlay.png` (over the image, with a legend), of other tasks `NAME.TASK.png`. None: nothing is
            written.
        step: whose weights, by default the last finished one's.
        task: of a sequence of tasks, or of a method that is told the step (`step0`, `step1`, ...): which one is asked
            for, by default the last one learnt.
        size: pixels of the shorter side of what the network sees, or `full`; default: as the run was evaluated, but
            without its crop.
        device: such as `cpu` or `cuda`.
        catalogue: folder with recipes of one's own.

    Returns:
        A prediction for each image.

    Raises:
        DenseCLError: no such run, step, task or weights; an image that cannot be read. All images are opened before
            anything is written.
    """
    return list(predictions(run, images, output, step=step, task=task, size=size, device=device, catalogue=catalogue))


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
) -> Iterator[Prediction]:
    """As `predict`, one after the other."""
    folder = Path(run)
    plan, record = plan_of(folder, device=device, catalogue=catalogue)
    step = finished_step(folder, record, step)
    index = _task_index(plan, record, step, task)
    wanted = _size(plan, index if record.tasks else None) if size is None else parse_size(size)
    _check_weights(folder, record, step)
    files = find_photos([images] if isinstance(images, str | os.PathLike) else images)
    if not files:
        raise SettingError("there is no image to predict", "name one or more, or a folder of them")
    names = unique_names(files)
    segments = not record.tasks or record.tasks[index].kind == "segmentation"
    kinds = (MASK, OVERLAY) if segments else (record.tasks[index].name,)
    places = [tuple(Path(output) / f"{name}.{kind}.png" for kind in kinds) if output else () for name in names]
    _check_places(files, places)
    for file in files:
        read_photo(file)  # all of them, before anything is written
    if output is not None:
        _check_writable(Path(output))
    stream = recorded_stream(plan, record)
    loop = restored(plan, stream, folder, step, record.hash)
    loop.strategy.select_task(index)
    predictor = Predictor(loop, stream.tasks[index], stream.labels_of(index), wanted)
    names = stream.names[index] if stream.kind == "tasks" else stream.class_names
    yield from _predictions(predictor, names, files, places)


def _predictions(
    predictor: Predictor,
    names: tuple[str, ...],
    files: Sequence[Path],
    places: Sequence[tuple[Path, ...]],
) -> Iterator[Prediction]:
    for file, written in zip(files, places, strict=True):
        photo = read_photo(file)
        pixels = predictor(photo.pixels)
        found: dict[str, float] = {}
        if pixels.ndim == 2:
            found = {names[label]: share for label, share in shares(pixels).items()}
        if written and pixels.ndim == 2:
            save_labels(pixels, written[0])
            save_image(overlay(photo.pixels, pixels, names), written[1])
        elif written:
            save_image(Image.fromarray(pixels), written[0])
        yield Prediction(file, pixels, names, found, photo.note, written)


def describe(prediction: Prediction) -> str:
    """One line: the image, what is in it, what was written."""
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
    """A name for what is written of each file: its stem, with a number behind it where another file has that."""
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
    """The number of the task that is asked for."""
    if not record.tasks and not plan.method.told:
        if task is not None:
            raise SettingError(
                f"{record.strategy} on {record.benchmark} has one network for all classes, and no task '{task}'",
                "leave out --task; --step chooses whose weights are used",
            )
        return step
    known = [found.name for found in record.tasks] or [f"step{k}" for k in range(len(record.steps))]
    learnt = known[: step + 1]
    if task is not None and task not in learnt:
        raise UnknownNameError("task", task, learnt, f"it was not learnt by step {step}")
    return step if task is None else learnt.index(task)


def _size(plan: Plan, task: int | None) -> Size:
    """At which size the run's evaluation looks at images."""
    own = None if task is None else plan.settings.stream.tasks[task].size
    return plan.settings.evaluation.size if own is None else own


def _check_weights(folder: Path, record: Record, step: int) -> None:
    """Refuse a step whose weights are gone, naming those that are there."""
    kept = [str(k) for k in range(len(record.steps)) if weights_path(folder, k).is_file()]
    if str(step) not in kept:
        there = f"it has those of step {', '.join(kept)}: --step {kept[-1]}" if kept else "run it again"
        raise RunError(f"{folder} has no weights of step {step}", there)


def _check_places(files: Sequence[Path], places: Sequence[tuple[Path, ...]]) -> None:
    """Refuse to write over an image that is to be read."""
    sources = {file.resolve() for file in files}
    for path in (path for written in places for path in written):
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
