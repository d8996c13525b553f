"""The contract of a task: what outputs mean, so that strategies need not know it.

A kind of task is one class in one file, `densecl/tasks/KIND.py`, or a class of a user's own, named as
`mine.py:MyTask`. Packaged files import torch where they need it, so that recipes can be read without it.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self, get_origin, get_type_hints

from densecl.data.geometry import LABELS, Geometry
from densecl.errors import SettingError
from densecl.settings.catalogue import source_hash

if TYPE_CHECKING:
    from torch import Tensor, nn

    from densecl.training.batch import Batch

GREY, SPREAD = 127.5, 63.75  # RGB outputs: 0 is mid-grey, +-2 are black and white, so outputs start near the images


class Prepared(NamedTuple):
    """A batch as a network is trained on it."""

    image: "Tensor"  # (B, 3, H, W) in 0..255, uint8 or floating: what the network sees, to be normalised
    # (B, H, W) int64 labels, 255 void, or (B, C, H, W) float32 in the unit of the outputs; (B, C, 1, 1) of whole images
    target: "Tensor"
    weight: "Tensor | None" = None  # (B, H, W) float32 of pixels in the loss, 0 where nothing is known; None: all 1


class Picture(NamedTuple):
    """A sample to look at: (3, H, W) uint8 RGB each."""

    input: "Tensor"
    output: "Tensor"
    truth: "Tensor"


class Metrics(Protocol):
    """The scores of a task, gathered over batches."""

    # all that is gathered, one tensor on the CPU. The scores of several processes together are those of the sum of
    # their `sums`: assign it, then `compute`
    sums: "Tensor"

    def update(self, output: "Tensor", image: "Tensor", target: "Tensor") -> None:
        """Count a batch: outputs (B, C, H, W), for segmentation also labels (B, H, W), and what `Task.prepare` gave.

        The image, (B, 3, H, W) uint8, is as it was before `Task.prepare`.
        """

    def compute(self) -> dict[str, Any]:
        """The scores by name, as records keep them."""
        ...


@dataclass(frozen=True)
class Context:
    """Facts that a task is built from besides its own settings."""

    class_names: tuple[str, ...] = ()  # of the data set, without background; empty for tasks without classes
    has_background: bool = True  # label 0 is a class of its own
    root: Path | None = None  # the data folder
    seed: int = 0  # of the run
    weights: str | None = None  # of loss networks whose task names none (`stream.loss_weights`)
    judge: bool = True  # False for prediction alone: no critic, no loss network, no style image
    shared: dict[Any, Any] = field(default_factory=dict)  # objects that tasks of one run share


class Task:
    """The output that the network must give at a step, with loss and scores.

    Annotated public class attributes of a subclass are its settings: keys of a task in a recipe, checked against their
    annotation. One without a value must be given in the recipe.
    """

    kind: ClassVar[str]  # in recipes and records; a strategy lists the kinds it can learn
    primary: ClassVar[str]  # the metric by which the task is ranked
    higher_is_better: ClassVar[bool] = True  # its direction
    measures: ClassVar[tuple[str, ...]] = ()  # the names of `scores`
    needs_masks: ClassVar[bool] = False  # `prepare` reads the masks; images without masks do for all other tasks
    # what `prepare` reads instead of masks: one of the `truths` of its data set, such as "depth" or "normals"
    truth: ClassVar[str | None] = None
    # one answer for a whole image: outputs and targets are (B, C, 1, 1), and the head pools the features
    image_level: ClassVar[bool] = False
    # of a task whose outputs are not labels of the stream, such as an image-level one
    class_names: tuple[str, ...] = ()
    name: str  # in records, such as `voc`
    outputs: int | None = None  # channels of the head; None where classes arrive over time and the stream knows
    has_background: bool = True  # output 0 is a class of its own; False: it is "something of another step"

    def __init__(self, name: str, **values: Any):
        if unknown := sorted(values.keys() - self.declared()):
            raise SettingError(f"{type(self).__name__} has no setting '{unknown[0]}'")
        self.name = name
        vars(self).update(values)

    # ---- built from a recipe

    @classmethod
    def declared(cls) -> dict[str, tuple[Any, Any]]:
        """The kind's settings: name -> (type, default); the default is `...` where a value must be given."""
        try:
            hints = get_type_hints(cls, include_extras=True)
        except NameError as error:
            raise SettingError(f"{cls.__name__}: an annotation cannot be read: {error}") from error
        own = [key for key in hints if not key.startswith("_") and key not in Task.__annotations__]
        own = [key for key in own if hints[key] is not ClassVar and get_origin(hints[key]) is not ClassVar]
        if taken := [key for key in own if hasattr(Task, key)]:
            raise SettingError(f"{cls.__name__}.{taken[0]} is a method of Task", "give the setting another name")
        return {key: (hints[key], getattr(cls, key, ...)) for key in own}

    @classmethod
    def build(cls, name: str, values: dict[str, Any], context: Context) -> Self:
        """The task of a recipe; `values` holds all declared settings, checked."""
        return cls(name, **values)

    @classmethod
    def content(cls, values: dict[str, Any], context: Context) -> dict[str, Any]:
        """The settings for the hash of a run, with files by what they hold instead of their path."""
        return values

    @classmethod
    def source(cls) -> str:
        """Hash of the file of a user's class, so that an edited task is another run; empty for packaged kinds."""
        return source_hash(cls)

    @property
    def settings(self) -> dict[str, Any]:
        """The values that decide losses and scores besides the kind: for records and fingerprints."""
        return {key: getattr(self, key) for key in self.declared()}

    @property
    def given(self) -> bool:
        """True if pretrained weights perform the task, so that it is not trained."""
        return False

    # ---- to be written for a kind

    def prepare(self, image: "Tensor", mask: "Tensor") -> Prepared:
        """Input and target from an image (B, 3, H, W) uint8 RGB and its mask (B, H, W): labels, 255 void.

        The mask is zero where the task needs none. Of a task with a `truth` it is that, (B, C, H, W) float32, 0 where
        nothing is known; where an image alone is predicted, it is a mask of zeros (`truth_or_nothing`).
        """
        raise NotImplementedError

    def loss(self, logits: "Tensor", batch: "Batch") -> "Tensor":
        """The supervised loss: a scalar, the weighted mean over what is labelled (`batch.target` as in `Prepared`)."""
        raise NotImplementedError

    def scores(self, output: "Tensor", image: "Tensor", target: "Tensor") -> "dict[str, Tensor]":
        """The scores of each image of a batch by name, (B,) each: all of `measures`. Arguments as `Metrics.update`."""
        raise NotImplementedError

    def picture(self, image: "Tensor", output: "Tensor", mask: "Tensor") -> Picture:
        """One sample to look at: image (3, H, W) uint8, output (C, H, W) of the network, mask (H, W)."""
        raise NotImplementedError

    # ---- changed where a kind needs it

    def geometry(self) -> Geometry:
        """Say how values of the truth change when an image is mirrored, enlarged or turned."""
        return LABELS

    def predicted(self, logits: "Tensor") -> "Tensor":
        """Bring outputs (B, C, H, W) into the form of the target, differentiably. Labels stay logits."""
        return logits

    def metrics(self) -> Metrics:
        """An empty gathering of scores: averages of `scores` over images, unless a kind counts otherwise."""
        from densecl.metrics.image_quality import ImageAverages

        return ImageAverages(self.measures, self.scores)

    def likely(self, logits: "Tensor") -> dict[str, float]:
        """The most probable classes of one image, by name; an image-level task has some."""
        return {}

    def distillation(self, logits: "Tensor", teacher_logits: "Tensor") -> "Tensor":
        """The distance of outputs to a teacher's, a scalar: the mean squared difference."""
        return (logits.float() - teacher_logits.float()).square().mean()

    def update_critic(
        self,
        logits: "Tensor",
        batch: "Batch",
        *,
        share: "float | Tensor" = 1.0,
        reduce: "Callable[[Iterable[nn.Parameter]], None] | None" = None,
    ) -> None:
        """Train what judges the outputs, once a training iteration and before `loss`; no gradient reaches the logits.

        `share` is that of the whole batch's images that this process holds; `reduce` sums the gradients of parameters
        over processes (`training.distributed.sum_gradients`).
        """

    def score(self, metrics: dict[str, Any]) -> float:
        """The primary metric out of a record's."""
        return number(metrics[self.primary])

    def forgetting(self, learnt: dict[str, Any], now: dict[str, Any]) -> float:
        """The loss of the primary metric since the task was learnt; positive is worse."""
        change = self.score(learnt) - self.score(now)
        return change if self.higher_is_better else -change

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed training of the task needs, such as a critic's; most tasks have none."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def truth_or_nothing(mask: "Tensor", channels: int) -> "Tensor":
    """A truth (B, C, H, W); zeros of so many channels for the mask (B, H, W) of an image without one."""
    return mask if mask.ndim == 4 else mask.new_zeros(len(mask), channels, *mask.shape[1:]).float()


def number(value: float | None) -> float:
    """A recorded score; not-a-number where a record has none."""
    return math.nan if value is None else float(value)


def encode(image: "Tensor") -> "Tensor":
    """RGB in 0..255 to outputs: float32 in -2..2."""
    return (image.float() - GREY) / SPREAD


def decode(output: "Tensor") -> "Tensor":
    """Outputs to RGB in 0..255, not clamped."""
    return output * SPREAD + GREY


def decode_uint8(output: "Tensor") -> "Tensor":
    """Outputs to the RGB image that would be stored."""
    from densecl.metrics.colour import to_uint8

    return to_uint8(decode(output.float()))
