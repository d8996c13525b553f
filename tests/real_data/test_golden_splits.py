"""The field's counts, from the classes of all VOC images; skipped when the lists are absent."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_trees import presence
from densecl.cli import main
from densecl.data import open_dataset
from densecl.data.class_index import for_each
from densecl.data.sets.coco import COCO
from densecl.data.verify import verify, verify_split
from densecl.streams import golden, protocol

SHARED = Path(os.environ.get("DENSECL_SHARED") or Path(__file__).parents[3] / "shared") / "data"
pytestmark = pytest.mark.skipif(not (SHARED / "voc-lists").is_dir(), reason="no real data here")

TRAIN = [
    ("19-1", "disjoint", [10034, 548]),
    ("19-1", "overlapped", [10410, 548]),
    ("15-5", "disjoint", [8437, 2145]),
    ("15-5", "overlapped", [9568, 2145]),
    ("15-1", "disjoint", [8437, 378, 299, 420, 500, 548]),
    ("15-1", "overlapped", [9568, 487, 299, 491, 500, 548]),
    ("15-5s", "disjoint", [8437, 378, 299, 420, 500, 548]),
    ("15-5s", "overlapped", [9568, 487, 299, 491, 500, 548]),
    ("10-1", "disjoint", [3706, 188, 868, 227, 201, 3247, 378, 299, 420, 500, 548]),
    ("10-1", "overlapped", [6139, 528, 1177, 444, 482, 3898, 487, 299, 491, 500, 548]),
    ("5-3", "disjoint", [1753, 1517, 624, 1296, 3924, 1468]),
    ("5-3", "overlapped", [2836, 2331, 1542, 2095, 4484, 1468]),
]
SPLITS = ["19-1", "15-5", "15-1", "10-1", "5-3"]


@pytest.fixture(autouse=True)
def _environment(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path))
    monkeypatch.setenv("DENSECL_DATA", str(SHARED))


def table(name: str) -> np.ndarray:
    classes = json.loads((SHARED / "voc-lists" / "image_classes.json").read_text())
    return presence(classes[i] for i in (SHARED / "voc-lists" / f"{name}.txt").read_text().split())


@pytest.fixture(scope="module")
def train() -> np.ndarray:
    return table("train_aug")


@pytest.mark.parametrize(("split", "setting", "counts"), TRAIN)
def test_images_of_each_step_are_as_many_as_published(train, split, setting, counts):
    assert len(train) == 10582
    assert [len(c) for c in protocol.select(train, protocol.steps(split), setting)] == counts


def test_test_images_with_a_class_learnt_are_as_many_as_published():
    val = table("val")
    assert len(val) == 1449
    counts = {s: [len(i) for i in protocol.seen_images(val, protocol.steps(s))] for s in ("15-1", "19-1")}
    assert counts == {"15-1": [1240, 1277, 1329, 1353, 1421, 1449], "19-1": [1421, 1449]}


@pytest.mark.parametrize("split", SPLITS)
def test_identities_of_the_settings(train, split):
    steps = protocol.steps(split)
    overlapped, disjoint, sequential, parts = (
        protocol.select(train, steps, s) for s in ("overlapped", "disjoint", "sequential", "partitioned")
    )
    assert sorted(np.concatenate(parts).tolist()) == list(range(10582))  # disjoint from each other, and all are used
    assert sorted(np.concatenate(disjoint).tolist()) == list(range(10582))
    assert all(set(d) <= set(o) and set(p) <= set(o) for d, o, p in zip(disjoint, overlapped, parts, strict=True))
    assert all(np.array_equal(d, s) for d, s in zip(disjoint, sequential, strict=True))
    assert any(not np.array_equal(d, p) for d, p in zip(disjoint, parts, strict=True))
    other = protocol.select(train, steps, "partitioned", seed=1)
    assert any(not np.array_equal(p, o) for p, o in zip(parts, other, strict=True))
    later = protocol.later_classes(train, steps, parts)
    assert later[0] > 0  # the first images hold classes of later steps, as in overlapped and unlike in disjoint
    assert later[-1] == 0
    assert sum(protocol.later_classes(train, steps, disjoint)) == 0


def test_sequential_labels_more_of_the_same_pixels():
    reader = open_dataset("voc", "train")
    steps = protocol.steps("15-5")
    index = presence([np.flatnonzero(reader.read_labels(i)) for i in range(len(reader))])
    images = protocol.select(index, steps, "disjoint")[1][:40]
    labelled = dict.fromkeys(("disjoint", "sequential"), 0)
    for setting in labelled:
        lut = protocol.step_table(steps, 1, setting, "plop2021")
        for i in images:
            target = lut[reader.read_mask(int(i))]
            labelled[setting] += int(((target > 0) & (target < 255)).sum())
    assert labelled["sequential"] > labelled["disjoint"] > 0


@pytest.mark.parametrize(("split", "name"), [("train", "train_aug"), ("val", "val")])
def test_verification_passes_the_fields_lists(split, name):
    class Reader:
        def __len__(self):
            return {"train": 10582, "val": 1449}[split]

    reader = Reader()
    reader.name, reader.split = "voc", split  # type: ignore[attr-defined]
    index = table(name)
    (finding,) = golden.inspect(reader, index)  # type: ignore[arg-type]
    assert finding.level == "ok"
    index[:, 1:21] = np.roll(index[:, 1:21], 1, axis=1)  # classes in another order
    assert {f.level for f in golden.inspect(reader, index)} == {"error"}  # type: ignore[arg-type]


def test_the_small_voc_is_usable_but_not_comparable(capsys):
    assert not main(["data", "verify", "voc2012", "--data", str(SHARED / "voc-mini")])
    text = capsys.readouterr().out
    assert "9,696 of 10,582 training images are absent; usable, not comparable" in text
    assert "1,048 of 1,449 validation images are absent" in text
    assert "densecl data get voc2012" in text
    assert "error" not in text


def test_verification_costs_less_than_decoding_twice():
    dataset = open_dataset("voc", "train")

    def decode(i: int) -> None:
        for files in (dataset.image_files, dataset.mask_files):
            with Image.open(files[i]) as image:
                np.asarray(image)

    decoding, verifying = [], []  # of the processor: other programs do not disturb the least of them
    for _ in range(3):
        start = time.process_time()
        for_each(decode, len(dataset))
        middle = time.process_time()
        verify_split(dataset)
        decoding.append(middle - start)
        verifying.append(time.process_time() - middle)
    assert min(verifying) < 2 * min(decoding)


def test_coco_masks_are_painted_from_real_annotations():
    for split, images in (("train", 203), ("val", 199)):
        dataset = open_dataset("coco", split, SHARED / "coco-mini")
        assert (len(dataset), dataset.class_names) == (images, COCO.class_names)
    assert [f for f in verify("coco", SHARED / "coco-mini") if f.level == "error"] == []
    # an independent count: a person's mask lies in a person's box
    content = json.loads((SHARED / "coco-mini" / "annotations" / "instances_val2017.json").read_text())
    by_image: dict[str, list[dict]] = {}
    names = {image["id"]: image["file_name"][:-4] for image in content["images"]}
    for annotation in content["annotations"]:
        by_image.setdefault(names[annotation["image_id"]], []).append(annotation)
    assert any(annotation["iscrowd"] for annotation in content["annotations"])
    for i, name in enumerate(dataset.ids):
        mask = dataset.read(i).mask.numpy()
        boxes = np.zeros(mask.shape, bool)
        for annotation in by_image.get(name, ()):
            if annotation["category_id"] == 1 and not annotation["iscrowd"]:
                x, y, w, h = annotation["bbox"]
                boxes[max(0, int(y) - 1) : int(y + h) + 2, max(0, int(x) - 1) : int(x + w) + 2] = True
        assert not (mask == 1)[~boxes].any()
        held = {COCO.class_names.index(c["name"]) + 1 for c in content["categories"] if c["id"] in
                {a["category_id"] for a in by_image.get(name, ()) if not a["iscrowd"]}}  # fmt: skip
        crowd = {255} if any(a["iscrowd"] for a in by_image.get(name, ())) else set()
        assert set(np.unique(mask)) <= held | {0} | crowd
