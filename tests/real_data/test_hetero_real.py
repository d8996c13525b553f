"""Tasks on real files; skipped when `DENSECL_SHARED` (default: `shared` beside the checkout) has none."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from densecl.data import open_dataset
from densecl.data.styles import style_image
from densecl.data.transforms import ResizeCenterCrop
from densecl.models.loss_network import build_loss_network
from densecl.tasks import Segmentation
from densecl.tasks.colorization import Colorization
from densecl.tasks.style_transfer import StyleTransfer

SHARED = Path(os.environ.get("DENSECL_SHARED") or Path(__file__).parents[3] / "shared") / "data"
pytestmark = pytest.mark.skipif(not (SHARED / "style").is_dir(), reason="no real data here")


@pytest.fixture(autouse=True)
def _environment(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path))
    monkeypatch.setenv("DENSECL_DATA", str(SHARED))


def batch(dataset, size=64, n=4):
    samples = [ResizeCenterCrop(size)(*dataset.read(i)) for i in range(n)]
    return torch.stack([s[0] for s in samples]), torch.stack([s[1] for s in samples])


@pytest.mark.parametrize(("name", "classes", "images"), [("coco", 80, 203), ("voc", 20, 886)])
def test_real_masks_serve_the_segmentation_of_all_classes(name, classes, images):
    dataset = open_dataset(name, "train")
    assert (len(dataset), len(dataset.class_names)) == (images, classes)
    task = Segmentation(name, classes=len(dataset.class_names))
    image, mask = batch(dataset)
    target = task.prepare(image, mask).target
    assert set(target.unique().tolist()) <= {*range(classes + 1), 255}
    scores = task.metrics()
    scores.update(torch.where(target == 255, 0, target), image, target)
    assert scores.compute()["miou"]["all"] == 1


def test_real_photographs_are_coloured():
    image, mask = batch(open_dataset("coco", "val").without_masks())
    task = Colorization("coco")
    scores = task.metrics()
    target = task.prepare(image, mask).target
    scores.update(target, image, target)
    found = scores.compute()
    assert found["mse"] == 0
    assert found["baseline"] > 50


def test_real_paintings_are_found_and_are_styles():
    network = build_loss_network("vgg16", "none")
    image, mask = batch(open_dataset("coco", "train").without_masks())
    for name in ("starry-night", "scream"):
        pixels = style_image(name, size=128)
        assert min(pixels.shape[:2]) == 128
        assert pixels.std() > 20
        task = StyleTransfer(name, torch.from_numpy(pixels).permute(2, 0, 1), network)
        target = task.prepare(image, mask).target
        scores = task.metrics()
        scores.update(target, image, target)
        found = scores.compute()
        assert np.isfinite(found["baseline"])
        assert found["total_loss"] == pytest.approx(found["baseline"], rel=1e-4)
