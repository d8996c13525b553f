"""Pictures of a class-incremental run: the same few test images, their truth, and what was predicted after each step.

They are chosen by the benchmark's data alone, so all runs of a benchmark show the same ones. In `RUN/pictures`:
`images.png` (RGB), `truth.png` and `step0.png`, `step1.png`, ... (labels of `class_names`, 255 void, in a palette of
VOC's colours), all of the same tiles side by side, and `pictures.json` with their number, size and indices.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from densecl.data.dataset import VOID
from densecl.data.decode import present
from densecl.errors import RunError
from densecl.files import atomic_path, write_text
from densecl.palette import palette
from densecl.runner.predictor import labels_of, labels_of_outputs, see
from densecl.seeding import derive
from densecl.strategies.base import Strategy
from densecl.streams.samples import TestSamples
from densecl.streams.scenario import Scenario

FOLDER = "pictures"
COUNT = 6  # images
CANDIDATES = 48  # images whose masks are looked at to choose them
SIDE = 160  # pixels of the longer side of a tile, at most


def keep_step(strategy: Strategy, folder: Path, step: int, say: Callable[[str], None]) -> None:
    """Write the pictures after a step of a class-incremental run; the network stays what it is.

    A folder that cannot be written is said and does not end the run: nothing depends on pictures.
    """
    scenario = strategy.scenario
    if scenario.kind == "tasks":  # see `runner.tasks.keep_pictures`
        return
    samples = all_tests(scenario)
    chosen = choose(samples)
    loaded = [samples[position] for position in chosen]
    predicted = [predict_seen(strategy, step, sample.image, sample.target.numpy()) for sample in loaded]
    images = [sample.image.permute(1, 2, 0).numpy() for sample in loaded]
    truth = [sample.target.numpy() for sample in loaded]
    width, height = tile_size([labels.shape for labels in truth])
    place = folder / FOLDER
    about = {"indices": [sample.index for sample in loaded], "tile": [width, height], "count": len(loaded)}
    try:
        save_image(Image.fromarray(tiles(images, (width, height), 255)), place / "images.png")
        save_labels(tiles(truth, (width, height), VOID), place / "truth.png")
        save_labels(tiles(predicted, (width, height), VOID), place / f"step{step}.png")
        write_text(place / "pictures.json", json.dumps(about) + "\n")
    except RunError as error:
        say(f"no pictures of step {step}: {error}")


def choose(samples: TestSamples, count: int = COUNT) -> list[int]:
    """Positions of images that show many classes, the same for every run on these images, ascending.

    Images are taken in an order that derives from their index in the data set. Of the first `CANDIDATES` with any
    class, one after the other is chosen that shows most classes which none before has; of equal ones the first.
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
    if not scenario.by_task:
        return scenario.test
    table = scenario.test.table.clone()
    table[table != 0] = VOID
    for samples, labels in zip(scenario.tests, scenario.groups, strict=True):
        for number, label in enumerate(labels, start=1):
            table[samples.table == number] = label
    indices = np.unique(np.concatenate([samples.indices for samples in scenario.tests]))
    return TestSamples(scenario.test.reader, indices, table, scenario.test.transform)


def predict_seen(strategy: Strategy, step: int, image: Tensor, truth: np.ndarray) -> np.ndarray:
    """(H, W) uint8 labels of an image (3, H, W) of the test stream after a step.

    A method that is told the step is asked for each one learnt that the image holds classes of, as in its evaluation;
    what later ones see lies on top.
    """
    scenario = strategy.scenario
    if not scenario.by_task:
        return labels_of(strategy, see(strategy, scenario.tasks[step], image)).astype(np.uint8)
    result = np.zeros(truth.shape, np.uint8)
    for index, labels in enumerate(scenario.groups[: step + 1]):
        if np.isin(truth, labels).any():
            strategy.select_task(index)
            own = labels_of(strategy, see(strategy, scenario.tasks[index], image))
            found = np.array(labels_of_outputs(scenario, index), np.uint8)[own]
            result = np.where(found == 0, result, found)
    strategy.select_task(step)
    return result


def tile_size(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """(width, height) that holds images of these (height, width), each made smaller to `SIDE` where it is larger."""
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
    """Write labels (H, W) uint8 atomically as a PNG with VOC's palette.

    Raises:
        RunError: it cannot be written.
    """
    image = Image.fromarray(labels)
    image.putpalette(palette())
    save_image(image, path)


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG atomically.

    Raises:
        RunError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def _fitted(height: int, width: int) -> tuple[int, int]:
    longer = max(height, width, SIDE)
    return max(1, round(height * SIDE / longer)), max(1, round(width * SIDE / longer))
