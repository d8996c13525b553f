"""ADE20K in the version of the scene parsing challenge: 150 classes, 20,210 training and 2,000 validation images."""

import os
from pathlib import Path

from densecl.data.dataset import VOID, DenseDataset
from densecl.data.places import check_files, data_folder, names_in
from densecl.errors import DataError, UnknownNameError

# The first name of each class in the challenge's objectInfo150.txt.
CLASS_NAMES = tuple(
    name.strip()
    for name in """
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
    table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field,
    armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard,
    chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway,
    case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower,
    book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine,
    hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane,
    dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship,
    fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag,
    minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher,
    screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate,
    monitor, bulletin board, shower, radiator, glass, clock, flag
    """.replace("\n", " ").split(",")
)
FOLDERS = ("ade20k", "ADEChallengeData2016", "ade")
SPLITS = ("train", "val", "test")

_PARTS = {"train": "training", "val": "validation", "test": "validation"}


def find(root: Path) -> Path | None:
    """The ADEChallengeData2016 folder in or at `root`; None when there is none."""
    for folder in (root / "ADEChallengeData2016", root):
        if (folder / "annotations" / "training").is_dir() or (folder / "images" / "training").is_dir():
            return folder
    return None


def hint() -> str:
    """How to get ADE20K, and where to put it."""
    place = data_folder() / FOLDERS[0]
    return (
        "extract http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip "
        f"in {place}, or name its folder with --data or DENSECL_DATA"
    )


class ADE20K(DenseDataset):
    """ADE20K (Zhou et al., CVPR 2017): ADEChallengeData2016/{images,annotations}/{training,validation}.

    Ids 1..150 are the classes; 0 is "other", none of them. The challenge does not score those pixels, so they are void
    here, and the data set has no background. The code of MiB and PLOP trains them as output 0 instead; the label preset
    `mib2020`, where void becomes 0, does the same. `test` is `validation`: the real test masks are not public.
    """

    def __init__(self, root: Path, split: str):
        """Compare the folders with each other.

        Args:
            root: the ADEChallengeData2016 folder or the one above it.
            split: train, val or test.

        Raises:
            DataError: a folder is missing, an image has no mask or a mask no image.
        """
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        folder = find(Path(root).expanduser())
        if folder is None:
            raise DataError(f"no ADE20K layout (images/training, annotations/training) in {root}", hint())
        part = _PARTS[split]
        images, masks = folder / "images" / part, folder / "annotations" / part
        for needed in (images, masks):
            if not needed.is_dir():
                raise DataError(f"the folder {needed} is missing", hint())
        image_names = {name for name in names_in(images) if name.endswith(".jpg")}
        mask_names = {name for name in names_in(masks) if name.endswith(".png")}
        ids = sorted({name[:-4] for name in image_names | mask_names})
        if not ids:
            raise DataError(f"{images} holds no .jpg", hint())
        check_files(f"masks of {part}", masks, [f"{i}.png" for i in ids], mask_names, hint())
        check_files(f"images of {part}", images, [f"{i}.jpg" for i in ids], image_names, hint())
        super().__init__(
            "ade20k",
            folder,
            split,
            ids=ids,
            images=[f"{images}{os.sep}{i}.jpg" for i in ids],
            masks=[f"{masks}{os.sep}{i}.png" for i in ids],
            class_names=CLASS_NAMES,
            has_background=False,
            labels={0: VOID, **{c: c for c in range(1, len(CLASS_NAMES) + 1)}},
            source=f"images/{part} + annotations/{part}",
        )
