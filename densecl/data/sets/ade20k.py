"""ADE20K in the version of the scene parsing challenge: 150 classes, 20,210 training and 2,000 validation images."""

import os
from types import MappingProxyType

from densecl.data.dataset import VOID, DenseDataset
from densecl.data.places import by_stem

# The first name of each class in the challenge's objectInfo150.txt.
_NAMES = """
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
"""


class ADE20K(DenseDataset):
    """ADE20K (Zhou et al., CVPR 2017): ADEChallengeData2016/{images,annotations}/{training,validation}.

    Ids 1..150 are the classes; 0 is "other", none of them. The challenge does not score those pixels, so they are void
    here, and the data set has no background. The code of MiB and PLOP trains them as output 0 instead; the label preset
    `mib2020`, where void becomes 0, does the same. `test` is `validation`: the real test masks are not public.
    """

    name = "ade20k"
    aliases = ("ade",)
    class_names = tuple(name.strip() for name in _NAMES.replace("\n", " ").split(","))
    has_background = False
    label_of = MappingProxyType({0: VOID, **{c: c for c in range(1, 151)}})
    upright = None
    folders = ("ade20k", "ADEChallengeData2016", "ade")
    inside = ("ADEChallengeData2016", "")
    layout = ("images/training", "annotations/training")
    get_it = "extract http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip in {place}"
    counts = MappingProxyType({"train": 20210, "val": 2000, "test": 2000})
    paper = "Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017"
    licence = "images for non-commercial research and education"

    def files(self, split: str) -> list[tuple[str, str, str]]:
        """Every image or mask of a part; one without the other is refused."""
        part = "training" if split == "train" else "validation"
        images, masks = self.root / "images" / part, self.root / "annotations" / part
        self.source = f"images/{part} + annotations/{part}"
        photos, labelled = by_stem(images, ".jpg"), by_stem(masks, ".png")
        return [
            (i, f"{images}{os.sep}{photos.get(i, f'{i}.jpg')}", f"{masks}{os.sep}{labelled.get(i, f'{i}.png')}")
            for i in sorted({**photos, **labelled})
        ]
