"""Pictures of a run: a few test images, their truth, and the predictions after each step, in `RUN/pictures`.

Of a class-incremental run: `images.png` (RGB), `truth.png` and `step0.png`, `step1.png`, ... (labels of `class_names`,
255 void, in a palette of VOC's colours), all of the same tiles side by side, and `pictures.json` with their number,
size and indices. The images are chosen by the benchmark's data alone, so all runs of a benchmark show the same ones.

Of a sequence of tasks: `step0-TASK.png` has the first images of each task, input, output and truth in a row.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from densecl.data.dataset import VOID
from densecl.data.decode import present
from densecl.errors import RunError
from densecl.files import atomic_path, write_text
from densecl.palette import palette
from densecl.runner.evaluation import see
from densecl.seeding import derive
from densecl.streams.samples import TestSamples
from densecl.streams.scenario import Scenario
from densecl.training.loop import Loop
from densecl.training.precision import widened

FOLDER = "pictures"
COUNT = 6  # images
ROWS = 4  # images of each task of a sequence
CANDIDATES = 48  # images whose masks are looked at to choose them
SIDE = 160  # pixels of the longer side of a tile, at most


def keep(loop: Loop, folder: Path, step: int, say: Callable[[str], None]) -> None:
    """Write the pictures after a step; the network stays unchanged.

    A folder that cannot be written is said and does not end the run: nothing depends on pictures.
    """
    place = folder / FOLDER
    try:
        if loop.stream.kind == "classes":
            _keep_tiles(loop, place, step)
            return
        for (head,) in loop.stream.evaluations(step):
            name = loop.stream.tasks[head].name
            pixels = task_picture(loop, head).permute(1, 2, 0).contiguous().numpy()
            save_image(Image.fromarray(pixels), place / f"step{step}-{name}.png")
        loop.strategy.select_task(step)
    except RunError as error:
        say(f"no pictures of step {step}: {error}")


def _keep_tiles(loop: Loop, place: Path, step: int) -> None:
    samples = all_tests(loop.scenario)
    loaded = [samples[position] for position in choose(samples)]
    predicted = [predict_seen(loop, step, sample.image, sample.target.numpy()) for sample in loaded]
    images = [sample.image.permute(1, 2, 0).numpy() for sample in loaded]
    truth = [sample.target.numpy() for sample in loaded]
    width, height = tile_size([labels.shape for labels in truth])
    about = {"indices": [sample.index for sample in loaded], "tile": [width, height], "count": len(loaded)}
    save_image(Image.fromarray(tiles(images, (width, height), 255)), place / "images.png")
    save_labels(tiles(truth, (width, height), VOID), place / "truth.png")
    save_labels(tiles(predicted, (width, height), VOID), place / f"step{step}.png")
    write_text(place / "pictures.json", json.dumps(about) + "\n")


def task_picture(loop: Loop, head: int) -> Tensor:
    """The first test images of a task in one image (3, H, W) uint8: rows of input, output and truth."""
    task, samples = loop.stream.tasks[head], loop.scenario.tests_of(head)
    loop.strategy.select_task(head)
    rows = []
    for sample in (samples[position] for position in range(min(ROWS, len(samples)))):
        output, _ = see(loop, task, sample.image[None], sample.target[None])
        image, mask = sample.image.to(loop.device), sample.target.to(loop.device)
        picture = task.picture(image, output.logits[0].float(), mask)
        rows.append(torch.cat([part.cpu() for part in picture], 2))
    width = max(row.shape[2] for row in rows)
    return torch.cat([torch.nn.functional.pad(row, (0, width - row.shape[2])) for row in rows], 1)


def choose(samples: TestSamples, count: int = COUNT) -> list[int]:
    """Choose images that show many classes: their positions in ascending order, equal for all runs on these images.

    Images are ordered by a hash of their index in the data set. Of the first `CANDIDATES` with any class, the one with
    most classes that are not shown yet is chosen again and again; of equal ones the first.
    """
    order = sorted(range(len(samples)), key=lambda position: derive("pictures", int(samples.indices[position])))
    candidates: dict[int, frozenset[int]] = {}
    for position in order:
        if len(candidates) == CANDIDATES:
            break
        ids = np.flatnonzero(present(np.ascontiguousarray(samples.reader.read_mask(int(samples.indices[position])))))
        if classes := frozenset(ids.tolist()) - {0, VOID}:
            candidates[position] = classes
    chosen: list[int] = []
    shown: frozenset[int] = frozenset()
    while candidates and len(chosen) < count:
        best = max(candidates, key=lambda position: len(candidates[position] - shown))  # the first of equal ones
        shown |= candidates.pop(best)
        chosen.append(best)
    return sorted(chosen or order[:count])


def all_tests(scenario: Scenario) -> TestSamples:
    """The test samples of a class-incremental stream with all its labels.

    A stream for methods that are told the step has them by step, with the labels of that step's classes alone.
    """
    first = scenario.tests[0]
    if not scenario.stream.by_task:
        return first
    table = first.table.clone()
    table[table != 0] = VOID
    for samples, labels in zip(scenario.tests, scenario.stream.groups, strict=True):
        for number, label in enumerate(labels, start=1):
            table[samples.table == number] = label
    indices = np.unique(np.concatenate([samples.indices for samples in scenario.tests]))
    return TestSamples(first.reader, indices, table, first.transform)


def predict_seen(loop: Loop, step: int, image: Tensor, truth: np.ndarray) -> np.ndarray:
    """(H, W) uint8 labels of an image (3, H, W) of the test stream after a step.

    A method that is told the step is asked once for each learnt step whose classes the image holds, like in its
    evaluation; predictions of later steps lie on top.
    """
    stream, result = loop.stream, np.zeros(truth.shape, np.uint8)
    [heads] = stream.evaluations(step)
    for head in heads:
        labels = np.array(stream.labels_of(head), np.uint8)
        if not stream.by_task or np.isin(truth, labels[1:]).any():
            loop.strategy.select_task(head)
            output, _ = see(loop, stream.tasks[head], image[None], torch.zeros(1, *truth.shape, dtype=torch.uint8))
            predicted = labels[loop.strategy.predict(widened(output))[0].cpu().numpy()]
            result = np.where(predicted == 0, result, predicted)
    loop.strategy.select_task(step)
    return result


def tile_size(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """(width, height) that holds images of these (height, width); larger ones are made smaller to `SIDE`."""
    fitted = [_fitted(height, width) for height, width in shapes]
    return max(width for _, width in fitted), max(height for height, _ in fitted)


def tiles(arrays: Sequence[np.ndarray], size: tuple[int, int], fill: int) -> np.ndarray:
    """Images (H, W, 3) or labels (H, W) side by side, each in the centre of a tile of `size` (width, height).

    Images are resized with antialiasing; labels take the pixel whose centre is nearest.
    """
    row = []
    for array in arrays:
        height, width = _fitted(*array.shape[:2])
        method = Image.Resampling.NEAREST if array.ndim == 2 else Image.Resampling.BILINEAR
        small = np.asarray(Image.fromarray(array).resize((width, height), method))
        tile = np.full((size[1], size[0], *array.shape[2:]), fill, np.uint8)
        top, left = (size[1] - height) // 2, (size[0] - width) // 2
        tile[top : top + height, left : left + width] = small
        row.append(tile)
    return np.concatenate(row, 1)


def save_labels(labels: np.ndarray, path: Path) -> None:
    """Write labels (H, W) uint8 atomically as a PNG with VOC's palette; a full disk is a RunError."""
    image = Image.fromarray(labels)
    image.putpalette(palette())
    save_image(image, path)


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG atomically; a full disk is a RunError."""
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def _fitted(height: int, width: int) -> tuple[int, int]:
    longer = max(height, width, SIDE)
    return max(1, round(height * SIDE / longer)), max(1, round(width * SIDE / longer))
