"""Predict photographs with the kept weights of a run: `densecl predict` and `densecl.predict`."""

import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from densecl.data.decode import find_photos, read_photo
from densecl.data.transforms import resize_image
from densecl.errors import RunError, SettingError, UnknownNameError
from densecl.files import write_error
from densecl.finished.evaluate import finished_step, plan_of
from densecl.finished.overlay import overlay, percent, shares
from densecl.models.network import Output
from densecl.records.record import Record
from densecl.runner.build import recorded_stream, restored
from densecl.runner.checkpoint import AGAIN, weights_path
from densecl.runner.evaluation import see
from densecl.runner.pictures import save_image, save_labels
from densecl.runner.plan import Plan
from densecl.tasks import Task
from densecl.training.loop import Loop

Images = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
Size = int | Literal["full"]


LEAST = 32  # pixels a side that a network sees: enough for a stride of 32
LONGEST = 8192  # pixels of the longer side, and
LARGEST = 2**21  # pixels in all, those of Cityscapes: the memory of most machines holds their features
BAND = 2**24  # values of logits that are enlarged at a time


class Prediction(NamedTuple):
    """The prediction of an image."""

    source: Path
    pixels: np.ndarray  # in its size: labels (H, W) uint8, or the picture (H, W, 3) uint8 of a task without labels
    names: tuple[str, ...]  # of the labels; empty for pictures
    # of the image's pixels by class name, the largest first; of a task of whole images, probabilities; else empty
    shares: dict[str, float]
    note: str  # what was left out of the file, such as "first of 12 frames"
    files: tuple[Path, ...]  # that were written


def predict(
    run: str | os.PathLike[str], images: Images, output: str | os.PathLike[str] | None = None, **options: Any
) -> list[Prediction]:
    """Label, colour or paint images with the kept weights of a run; no data set is needed.

    Args:
        run: the folder of a run.
        images: files, or folders of them, without their subfolders.
        output: folder to write to: for segmentation `NAME.mask.png` (labels, in a palette of VOC's colours) and
            `NAME.overlay.png` (over the image, with a legend), for other tasks `NAME.TASK.png`. None: nothing is
            written.
        **options: `step`, whose weights, by default the last finished one's. `task` of a sequence of tasks, or of a
            method that is told the step (`step0`, `step1`, ...); by default the last one learnt. `size`: pixels of the
            shorter side that the network sees, or `full`; by default as the run was evaluated, without its crop.
            `device`, such as `cpu` or `cuda`. `catalogue`: folder with recipes of one's own. `strategy`, `backbone`,
            `data_set`: classes of a run that are not of the catalogue, such as `mine.py:Mine`, named again: a record
            alone is not trusted to name code.

    Raises:
        DenseCLError: no such run, step, task or weights; an image that cannot be read. All images are opened before
            anything is written.
    """
    return list(predictions(run, images, output, **options))


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
    **own: Any,
) -> Iterator[Prediction]:
    """Like `predict`, one prediction after the other."""
    folder = Path(run)
    plan, record = plan_of(folder, device=device, catalogue=catalogue, **own)
    step = finished_step(folder, record, step)
    index = _task_index(plan, record, step, task)
    usual = plan.settings.stream.tasks[index].size if record.tasks else None
    usual = usual or plan.settings.evaluation.size
    seen = parse_size(size) if size is not None else min(usual) if isinstance(usual, tuple) else usual
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
    names = stream.names[index] if stream.kind == "tasks" else stream.class_names
    predictor = Predictor(loop, stream.tasks[index], stream.labels_of(index), names, seen)
    for file, paths in zip(files, written, strict=True):
        photo = read_photo(file)
        pixels, by_name = predictor(photo.pixels)
        if paths and labelled:
            save_labels(pixels, paths[0])
            save_image(overlay(photo.pixels, pixels, names), paths[1])
        elif paths:
            save_image(Image.fromarray(pixels), paths[0])
        yield Prediction(file, pixels, names, by_name, photo.note, paths)


class Predictor(NamedTuple):
    """A strategy that answers for single images; its network is that of the task already."""

    loop: Loop
    task: Task
    labels: tuple[int, ...]  # of segmentation, the run's label of each output
    names: tuple[str, ...]  # of the run's labels
    size: Size  # of the shorter side, or "full", see `EvaluationSettings`

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
        """Labels (H, W) uint8 of an RGB image (H, W, 3) uint8; of a task of values, the picture (H, W, 3) uint8.

        With the share of each class, by name: of the pixels or, of a task of whole images, its probability.
        """
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        height, width = image.shape[1:]
        seen = resize_image(image, seen_size(height, width, self.size))[None]
        output = see(self.loop, self.task, seen, torch.zeros(1, *seen.shape[2:], dtype=torch.uint8))[0]
        if self.task.kind == "segmentation":
            labels = np.array(self.labels, np.uint8)[labels_of(self.loop, output, (height, width))]
            return labels, {self.names[label]: share for label, share in shares(labels).items()}
        logits = output.logits.float()
        logits = (logits if self.task.image_level else _scaled(logits, (height, width)))[0].cpu()
        picture = self.task.picture(image, logits, torch.zeros(height, width, dtype=torch.uint8)).output
        return picture.permute(1, 2, 0).contiguous().numpy(), self.task.likely(logits)


def seen_size(height: int, width: int, size: Size) -> tuple[int, int]:
    """(height, width) at which a network sees an image: that of the evaluation of its run, but without a crop.

    The shorter side becomes `size` and the longer one follows, rounded down; "full" leaves both. Images that would be
    smaller than `LEAST` or larger than `LONGEST` and `LARGEST` are brought there, if need be at another aspect.
    """
    shorter = min(height, width)
    wanted = shorter if size == "full" else size
    sides = [side * wanted // shorter for side in (height, width)]
    excess = math.sqrt(sides[0] * sides[1] / LARGEST)
    if excess > 1:
        sides = [int(side / excess) for side in sides]
    low, high = (min(max(side, LEAST), LONGEST) for side in sides)
    return low, high


def labels_of(loop: Loop, output: Output, size: tuple[int, int] | None = None) -> np.ndarray:
    """(H, W) int64: the outputs that the strategy gives to the pixels of one image.

    Logits are scaled bilinearly to another `size` (height, width), in bands where they are many.
    """
    logits: list[Tensor] | Iterator[Tensor] = [output.logits]
    if size is not None and tuple(output.logits.shape[-2:]) != size:
        height, width = size
        rows = max(1, BAND // (output.logits.shape[1] * width))
        if rows < height:
            logits = (band(output.logits, size, top, min(top + rows, height)) for top in range(0, height, rows))
        else:
            logits = [_scaled(output.logits, size)]
    return np.concatenate([loop.strategy.predict(output._replace(logits=part))[0].cpu().numpy() for part in logits])


def band(logits: Tensor, size: tuple[int, int], top: int, bottom: int) -> Tensor:
    """Rows top..bottom of (1, C, h, w) scaled bilinearly to `size` (align_corners=False): (1, C, bottom - top, W)."""
    height, width = logits.shape[2], size[1]
    centre = (torch.arange(top, bottom, device=logits.device, dtype=torch.float32) + 0.5) * (height / size[0]) - 0.5
    centre = centre.clamp(0, height - 1)
    above = centre.floor().long()
    below = (above + 1).clamp(max=height - 1)
    share = (centre - above).view(-1, 1)
    rows = logits[:, :, above] * (1 - share) + logits[:, :, below] * share  # (1, C, n, w)
    return F.interpolate(rows, size=(bottom - top, width), mode="bilinear", align_corners=False)


def _scaled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The logits at another size; where that is smaller, all of them count."""
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False, antialias=True)


def describe(prediction: Prediction) -> str:
    """One line: the image, its classes, the files written."""
    note = f" ({prediction.note})" if prediction.note else ""
    content = ", ".join(f"{name} {percent(share)}" for name, share in prediction.shares.items())
    files = [str(prediction.files[0]), *(file.name for file in prediction.files[1:])] if prediction.files else []
    return f"{prediction.source}{note}: {content}{' -> ' if content and files else ''}{', '.join(files)}"


def parse_size(text: str) -> Size:
    """`full`, or the pixels of the shorter side; anything else is a SettingError."""
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
        advice = f"it has those of step {', '.join(available)}: --step {available[-1]}" if available else AGAIN
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
