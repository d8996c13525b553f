"""The field's counts of images in each step, which a complete Pascal VOC must reproduce.

MiB ships its lists of images and SSUL the classes of each image; the counts below come from both and agree everywhere
both exist (10-1, 5-3 and the test counts rest on SSUL's alone). Nothing is shipped here but the numbers.
"""

import numpy as np

from densecl.data.dataset import DenseDataset
from densecl.data.verify import Finding
from densecl.errors import SettingError
from densecl.streams import protocol

TRAIN_IMAGES, TEST_IMAGES = 10582, 1449  # of train_aug.txt and val.txt
# split -> setting -> training images of each step
TRAIN: dict[str, dict[str, tuple[int, ...]]] = {
    "19-1": {"disjoint": (10034, 548), "overlapped": (10410, 548)},
    "15-5": {"disjoint": (8437, 2145), "overlapped": (9568, 2145)},
    "15-1": {"disjoint": (8437, 378, 299, 420, 500, 548), "overlapped": (9568, 487, 299, 491, 500, 548)},
    "10-1": {
        "disjoint": (3706, 188, 868, 227, 201, 3247, 378, 299, 420, 500, 548),
        "overlapped": (6139, 528, 1177, 444, 482, 3898, 487, 299, 491, 500, 548),
    },
    "5-3": {"disjoint": (1753, 1517, 624, 1296, 3924, 1468), "overlapped": (2836, 2331, 1542, 2095, 4484, 1468)},
}
# split -> test images that hold a class learnt by each step
TEST: dict[str, tuple[int, ...]] = {"15-1": (1240, 1277, 1329, 1353, 1421, 1449), "19-1": (1421, 1449)}


def inspect(dataset: DenseDataset, presence: np.ndarray) -> list[Finding]:
    """Compare the counts of a complete VOC split with the field's; nothing for any other data.

    `presence`, (N, 256) bool, holds the labels of each mask.
    """
    split = dataset.split
    if dataset.name != "voc" or len(dataset) != (TRAIN_IMAGES if split == "train" else TEST_IMAGES):
        return []
    wrong = differing_train(presence) if split == "train" else differing_test(presence)
    total = sum(map(len, TRAIN.values())) if split == "train" else len(TEST)
    if not wrong:
        return [Finding("ok", split, f"counts of images in each step equal the published ones ({total} streams)")]
    hint = "; these are other lists or masks than the field's: delete the data and get it again"
    return [Finding("error", split, f"images in each step: {text}{hint}") for text in wrong]


def differing_train(presence: np.ndarray) -> list[str]:
    """Differences from TRAIN, in words: (N, 256) bool of the augmented training list."""
    wrong = []
    for split, setting, expected in ((a, b, counts) for a, settings in TRAIN.items() for b, counts in settings.items()):
        try:
            counts = tuple(map(len, protocol.select(presence, protocol.steps(split), setting)))
        except SettingError as error:  # a step without any image
            wrong.append(f"{split} {setting}: {error}")
            continue
        if counts != expected:
            wrong.append(f"{split} {setting} has {list(counts)}, published {list(expected)}")
    return wrong


def differing_test(presence: np.ndarray) -> list[str]:
    """Differences from TEST, in words: (N, 256) bool of the validation list."""
    wrong = []
    for split, expected in TEST.items():
        counts = tuple(map(len, protocol.seen_images(presence, protocol.steps(split))))
        if counts != expected:
            wrong.append(f"{split} has {list(counts)} with a class learnt, published {list(expected)}")
    return wrong
