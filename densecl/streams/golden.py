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

    Args:
        dataset: the reader of `train` or `val`.
        presence: (N, 256) bool, which labels each mask holds.
    """
    if dataset.name != "voc":
        return []
    if dataset.split == "train" and len(dataset) == TRAIN_IMAGES:
        wrong, total = differing_train(presence), sum(map(len, TRAIN.values()))
    elif dataset.split in ("val", "test") and len(dataset) == TEST_IMAGES:
        wrong, total = differing_test(presence), len(TEST)
    else:
        return []
    if not wrong:
        return [
            Finding("ok", dataset.split, f"counts of images in each step equal the published ones ({total} streams)")
        ]
    hint = "; these are other lists or masks than the field's: delete the data and get it again"
    return [Finding("error", dataset.split, f"images in each step: {text}{hint}") for text in wrong]


def differing_train(presence: np.ndarray) -> list[str]:
    """What differs from TRAIN, in words: (N, 256) bool of the augmented training list."""
    wrong = []
    for split, settings in TRAIN.items():
        steps = protocol.steps(split)
        for setting, expected in settings.items():
            try:
                found = tuple(len(images) for images in protocol.select(presence, steps, setting))
            except SettingError as error:  # a step without any image
                wrong.append(f"{split} {setting}: {error}")
                continue
            if found != expected:
                wrong.append(f"{split} {setting} has {list(found)}, published {list(expected)}")
    return wrong


def differing_test(presence: np.ndarray) -> list[str]:
    """What differs from TEST, in words: (N, 256) bool of the validation list."""
    wrong = []
    for split, expected in TEST.items():
        found = tuple(len(images) for images in protocol.seen_images(presence, protocol.steps(split)))
        if found != expected:
            wrong.append(f"{split} has {list(found)} with a class learnt, published {list(expected)}")
    return wrong
