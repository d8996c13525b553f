"""The settings of one task of a sequence, as recipes have them."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Size = Count | tuple[Count, Count]


class TaskSettings(BaseModel):
    """One task of a sequence. None: the value of the sections training and evaluation, or of the kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["segmentation", "colorization", "style_transfer", "autoencoding"]
    data: str  # data set
    split: Literal["train", "trainval"] = "train"
    crop: Size | Literal["full"] | None = None
    size: Count | Literal["full"] | None = None  # of evaluated images
    scale: Positive = 50.0  # colorization: chroma of an output of 1
    loss: Literal["l1", "l2", "adversarial"] = "l1"  # autoencoding
    style: str | None = None  # style transfer: swirls, waves, a file, or words of a name in the data folder's `style`
    style_size: Count | None = None  # its shorter side, in pixels
    loss_network: Literal["vgg16", "random"] = "vgg16"
    loss_weights: str | None = None  # of vgg16: torchvision (the default), a file, or none: random ones of `loss_seed`
    loss_seed: int = 0
    content_weight: Positive = 1e5
    style_weight: Positive = 1e10
    normalised: bool = False  # losses relative to the style's own

    @model_validator(mode="after")
    def _consistent(self) -> "TaskSettings":
        for key in sorted(self.model_fields_set):
            if (owner := TASK_KEYS.get(key)) is not None and owner != self.kind and getattr(self, key) != _default(key):
                raise ValueError(f"'{key}' is of {owner}, and task '{self.name}' is {self.kind}")
        if self.kind == "style_transfer" and self.style is None:
            raise ValueError(f"task '{self.name}' needs a style")
        return self

    @model_serializer(mode="wrap")
    def _own(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the keys of other kinds."""
        return {key: value for key, value in handler(self).items() if TASK_KEYS.get(key, self.kind) == self.kind}


STYLE_KEYS = ("style", "style_size", "loss_network", "loss_weights", "loss_seed", "content_weight", "style_weight")
TASK_KEYS = {
    **dict.fromkeys((*STYLE_KEYS, "normalised"), "style_transfer"),
    "scale": "colorization",
    "loss": "autoencoding",
}


def _default(key: str) -> Any:
    return TaskSettings.model_fields[key].default
