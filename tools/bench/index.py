"""The cost of the class index beside a bare parallel decode of the same masks."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from bench.rows import COST, SPEED, Bench, Form, Goal, Row
from bench.trees import USUAL, Drawn, find_tree
from densecl.data import open_dataset
from densecl.data.class_index import class_index, for_each, scan, usable_cores
from densecl.data.dataset import DenseDataset

SMALL = {"drawn": Drawn(4, 2, (32, 48))}


def measure(bench: Bench, drawn: Drawn = USUAL) -> Iterator[Row]:
    """Measure the training split of VOC, drawn where none is found."""
    tree = find_tree(bench.data, drawn)
    yield from measure_index(bench, open_dataset("voc", "train", tree.root), note=tree.note)


def measure_index(bench: Bench, dataset: DenseDataset, note: str = "") -> Iterator[Row]:
    """The scan over a bare decode, on the same threads; and reading the kept index against scanning again.

    The files are read once before, so that none comes from the disk.
    """

    def decode(i: int) -> None:
        with Image.open(dataset.mask_files[i]) as image:
            np.asarray(image)

    scanning = Form("scan of masks", lambda: scan(dataset))
    what = f"class index of {len(dataset)} masks, {usable_cores()} threads"
    bare = Form("bare decode", lambda: for_each(decode, len(dataset)))
    yield bench.compare(what, scanning, bare, COST, goal=Goal(ratio=1.3), note=note)
    with TemporaryDirectory() as folder:
        kept = Form("kept index", lambda: class_index(dataset, folder=Path(folder)))
        what = f"the same once kept, {len(dataset)} masks"
        yield bench.compare(what, kept, scanning, SPEED, goal=Goal(seconds=0.1), note=note)
