"""`about.toml`: what the author of another code declares about its predictions, in keys that are checked."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from densecl.errors import DataError, SettingError
from densecl.records.foreign import Declared, Text
from densecl.settings.catalogue import file_of
from densecl.settings.faults import first_fault
from densecl.settings.grammar import parse_one
from densecl.settings.recipe import TrainingSettings, build

FILE_NAME = "about.toml"
TEMPLATE = """\
# What cannot be seen in predictions. Each key that you uncomment is your own declaration: tables and reports show it
# beside the mark "foreign, self-declared", and what you leave out as not declared.

# method = "STAR"                # its name in tables; --name comes before it
# network = "deeplabv3(encoder=resnet101, output_stride=16)"   # as densecl names it, or in your words
# weights = "ImageNet"           # that the network started from; "none": random ones
# seed = 0                       # runs that differ by seed alone are one row; --seed comes before it
# paper = "Author et al., Venue Year"
# code = "https://example.org/star, commit 1a2b3c4"

# memory = "none"                # what is kept of earlier images, how many and how labelled: "100 images, true labels"
# extra_data = "none"            # images or texts that the stream does not have
# extra_masks = "none"           # saliency, proposals or masks of other networks
# checkpoint = "last"            # weights chosen by: "last" (nothing), "held-out" training images, "test" images
# known_classes = false          # it knows from the first step how many classes will come
# told_step = false              # it is told at test time which step an image belongs to

# [training]                     # as in a recipe of a benchmark; --against compares it
# epochs = 30
# batch = 24
# lr = 0.01
# later = { epochs = 30, lr = 0.001 }
#
# [strategy]                     # hyper-parameters, by any name
# distillation = 10.0
#
# [ids]                          # where neither the ids of the data set nor those of the stream are in the label maps
# 0 = "background"
# 1 = "aeroplane"
"""
Scalar = bool | int | float | str


class About(Declared):
    """The content of `about.toml`."""

    method: Text | None = None
    network: Text | None = None
    weights: Text | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    strategy: dict[str, Scalar] = Field(default_factory=dict)
    ids: dict[Annotated[str, Field(pattern=r"^\d{1,5}$")], str] = Field(default_factory=dict)

    @property
    def declared(self) -> Declared:
        """The part that records keep as it is."""
        return Declared(**self.model_dump(include=set(Declared.model_fields)))


def refuse_missing(predictions: str | Path) -> None:
    """Refuse a folder of label maps, or a file of a network `load.py:Network`, that does not exist."""
    if ".py:" in str(predictions):
        file_of(parse_one(str(predictions), "network").name)
    elif not Path(predictions).is_dir():
        advice = "name a folder of label maps, or a network as load.py:Network"
        raise DataError(f"there is no folder {predictions}", advice)


def read_about(path: Path) -> About:
    """Read an `about.toml`.

    Raises:
        SettingError: it cannot be read, or has an unknown key or a wrong value; the message names file and key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise SettingError(f"cannot read {path}: {error}", "densecl score --template prints one") from error
    try:
        about = About.model_validate(content)
        build(TrainingSettings, about.training, "training")
    except ValidationError as error:
        raise SettingError(f"{path}: {first_fault(error, About)}") from error
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from error
    return about
