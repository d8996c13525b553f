"""What the class index costs beside a bare parallel decode of the same masks."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from bench import goals
from bench.rows import Bench, Row, Sense
from bench.timing import Form
from bench.trees import USUAL, Drawn, find_tree
from densecl.data import open_dataset
from densecl.data.class_index import class_index, for_each, scan, usable_cores
from densecl.data.dataset import DenseDataset

SMALL = {"drawn": Drawn(4, 2, (32, 48))}
KIND = "index"


def measure(bench: Bench, drawn: Drawn = USUAL) -> Iterator[Row]:
    """Measure the training split of VOC.

    Args:
        bench: how.
        drawn: the tree where none is found.
    """
    tree = find_tree(bench.data, drawn)
    yield from measure_index(bench, open_dataset("voc", "train", tree.root), note=tree.note)


def measure_index(bench: Bench, dataset: DenseDataset, workers: int | None = None, note: str = "") -> Iterator[Row]:
    """The scan over a bare decode, on the same threads; and reading the kept index against scanning again.

    Args:
        bench: how.
        dataset: what to scan; its files are read once before, so that none comes from the disk.
        workers: threads, default one a core.
        note: of the rows.
    """

    def decode(i: int) -> None:
        with Image.open(dataset.mask_files[i]) as image:
            np.asarray(image)

    threads = workers or usable_cores()
    scanning = Form("scan of masks", lambda: scan(dataset, workers=workers))
    yield bench.compare(
        KIND,
        f"class index of {len(dataset)} masks, {threads} threads",
        scanning,
        Form("bare decode", lambda: for_each(decode, len(dataset), workers=workers)),
        Sense.COST,
        on_cpu=True,
        goal=goals.SCAN,
        note=note,
    )
    with TemporaryDirectory() as folder:
        yield bench.compare(
            KIND,
            f"the same once kept, {len(dataset)} masks",
            Form("kept index", lambda: class_index(dataset, workers=workers, folder=Path(folder))),
            scanning,
            Sense.SPEED,
            on_cpu=True,
            goal=goals.KEPT_INDEX,
            note=note,
        )
