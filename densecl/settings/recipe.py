"""Recipes (TOML) and the settings of a run as frozen pydantic models: unknown keys and wrong types are refused by name.

Defaults are the ones of the field's reference recipe (MiB, PLOP: section 4 of Cermelli et al., CVPR 2020); a recipe
holds only what a benchmark changes.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from densecl.errors import RecipeError, SettingError, SpecError
from densecl.settings.data_recipe import anchor_data, count_classes, folded
from densecl.settings.faults import Model, first_fault, validated
from densecl.settings.task_recipe import MOST, AnyTask, Count, Positive, Size, is_own

Fraction = Annotated[float, Field(ge=0, lt=1)]
Lengths = Count | Annotated[tuple[Count, ...], Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(gt=0, le=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Overlay = dict[str, Any]


class Settings(BaseModel):
    """Base of all models here: immutable, and no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)


class DataSettings(Settings):
    """Where images come from and how they are normalised."""

    name: str = "voc"
    split: Literal["train", "trainval"] = "train"  # the images that are trained on
    root: Path | None = None  # not hashed: where the data lies must not change the numbers
    validation: Fraction = 0.0  # share of the training images held out and evaluated instead of the test stream
    validation_seed: int = 0  # which images; not the run's seed, so that all seeds are scored on the same
    mean: tuple[Share, Share, Share] = (0.485, 0.456, 0.406)  # of RGB in 0..1
    std: tuple[Spread, Spread, Spread] = (0.229, 0.224, 0.225)


class StreamSettings(Settings):
    """Classes and images of each step, and the labels of other classes."""

    split: str = "15-5"
    # what arrives at a step: classes, images of another domain (city), or another task
    kind: Literal["class", "domain", "tasks"] = "class"
    tasks: tuple[AnyTask, ...] = ()  # of a sequence
    # of the loss networks of all tasks that name none, see `StyleTransfer`. The grammar reads `none` as nothing
    loss_weights: Annotated[str, BeforeValidator(lambda value: "none" if value is None else value)] = "torchvision"
    setting: Literal["overlapped", "disjoint", "sequential", "partitioned"] = "overlapped"
    labels: Literal["plop2021", "mib2020", "strict"] = "plop2021"
    order: tuple[int, ...] | Annotated[int, Field(ge=0)] | None = None  # class ids as they arrive, or a seed
    groups: dict[str, Names] = {}  # class names of each step, instead of split and order, which are made of them
    # of the ties of `partitioned`; not the run's seed, so that runs with other seeds see the same data
    partition_seed: Annotated[int, Field(ge=0)] = 0

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out settings that decide nothing, so that runs do not differ by them."""
        content = handler(self)
        if not self.groups:
            content.pop("groups")
        if self.kind == "tasks":
            judged = any(getattr(task, "loss_network", "random") != "random" for task in self.tasks)
            unused = ["setting", "labels", "order", "partition_seed", *([] if judged else ["loss_weights"])]
        else:
            unused = ["tasks", "loss_weights", *(["partition_seed"] if self.setting != "partitioned" else [])]
        return {key: value for key, value in content.items() if key not in unused}


class PartSettings(Settings):
    """Training of one part of the network; None: as all of it is trained."""

    lr_scale: Annotated[float, Field(ge=0)] | None = None  # the learning rate is multiplied by
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    # frozen: statistics do not move; fixed: scale and shift neither
    batchnorm: Literal["train", "frozen", "fixed"] | None = None
    dropout: bool | None = None  # False: none


class PartsSettings(Settings):
    """Settings that differ by part of the network."""

    backbone: PartSettings = PartSettings()  # all before the decoder
    decoder: PartSettings = PartSettings()  # the backbone's `decoder_parts`
    old_heads: PartSettings = PartSettings()  # of earlier steps
    new_heads: PartSettings = PartSettings()  # of the step, and what heads have besides

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        given = {part: {k: v for k, v in values.items() if v is not None} for part, values in handler(self).items()}
        return {part: values for part, values in given.items() if values}


def _older_than(model: Settings, content: dict[str, Any], added: Sequence[str]) -> dict[str, Any]:
    """Leave out settings that were `added` later, at their defaults: runs from before keep their hash."""
    defaults = {key: type(model).model_fields[key].default for key in added}
    plain = {key: value.model_dump() if isinstance(value, BaseModel) else value for key, value in defaults.items()}
    return {key: value for key, value in content.items() if key not in added or value != plain[key]}


class LaterSettings(Settings):
    """Changes after step 0; None: as in step 0. A list has a length for steps 1, 2, ...; the last one repeats."""

    lr: Positive | None = 0.001
    epochs: Lengths | None = None
    iterations: Lengths | None = None
    parts: PartsSettings = PartsSettings()  # as `training.parts`, which they come before
    freeze: Literal["encoder"] | None = None

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _older_than(self, handler(self), ("parts", "freeze"))


class TrainingSettings(Settings):
    """Optimisation of each step."""

    epochs: Count = 30
    iterations: Count | None = None  # when given, the step's length instead of epochs
    later: LaterSettings = LaterSettings()
    batch: Annotated[int, Field(ge=2, le=MOST)] = 24  # BatchNorm learns nothing from one image
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.01
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    power: Annotated[float, Field(ge=0)] = 0.9  # of the polynomial decay, per iteration, restarted each step
    # instead of it, the rate is multiplied by `gamma` at each of these shares of a step: [0.5] is half-way
    milestones: tuple[Inside, ...] = ()
    gamma: Spread = 0.1
    # linear warm-up in each step: its iterations, or below 1 its share of the step
    warmup: Annotated[int, Field(ge=0)] | Fraction = 0
    batchnorm: Literal["train", "frozen"] = "train"  # frozen: statistics fixed after step 0
    class_weights: Annotated[float, Field(ge=0)] = 0.0  # p of frequency**-p, from the labels of the step; 0 is off
    augmentation: Literal["none", "flip", "reference", "rescale", "crop", "jitter", "rotation", "rotation+jitter"] = (
        "reference"
    )
    crop: Size | Literal["full"] = 512  # full: images as they are
    scale: tuple[Positive, Positive] = (0.5, 2.0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulation: Count = 1  # parts a batch is split into where memory is short; the batch, and its mean, stay whole
    channels_last: bool = False  # memory format; often faster on GPUs
    compile: bool = False  # torch.compile of the network, and on a GPU of the losses
    deterministic: bool = False  # algorithms that give the same bits each time, where torch has them; a CPU always does
    drop_last: bool = False  # of each epoch, the last batch where it is smaller; MiB and PLOP drop it
    # what the supervised loss is divided by: labelled pixels, or all of them (the code of MiB and PLOP)
    mean_over: Literal["labelled", "all"] = "labelled"
    # the loss sees the middle pixel of each square of this side: with 2 a quarter of them; segmentation only
    loss_stride: Annotated[int, Field(ge=1, le=16)] = 1
    parts: PartsSettings = PartsSettings()
    freeze: Literal["none", "encoder"] = "none"  # what stays as it is, with its statistics: from step 0 on
    # round the maps of a frozen encoder to float16 and keep them on disk, instead of computing them in each epoch
    cache_features: bool = False

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        added = ("milestones", "gamma", "drop_last", "mean_over", "loss_stride", "parts", "freeze", "cache_features")
        return _older_than(self, handler(self), added)

    def length(self, step: int) -> tuple[int | None, int | None]:
        """(epochs, iterations) of a step; exactly one is not None."""
        iterations, epochs = self.iterations, self.epochs
        if step > 0 and self.later.iterations is not None:
            iterations = _at(self.later.iterations, step)
        elif step > 0 and self.later.epochs is not None:
            iterations, epochs = None, _at(self.later.epochs, step)
        return (None, iterations) if iterations is not None else (epochs, None)

    def rate(self, step: int) -> float:
        """Learning rate at the start of a step."""
        return self.later.lr if step > 0 and self.later.lr is not None else self.lr

    def freezes(self, step: int) -> bool:
        """True if the encoder is frozen at a step."""
        return self.freeze == "encoder" or (step > 0 and self.later.freeze == "encoder")

    def part(self, name: str, step: int) -> PartSettings:
        """The settings of a part of the network at a step."""
        own: PartSettings = getattr(self.parts, name)
        later = getattr(self.later.parts, name).model_dump(exclude_none=True) if step > 0 else {}
        return own.model_copy(update=later)

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingSettings":
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale must be (low, high)")
        if self.milestones and self.power:
            raise ValueError(f"milestones need power=0: the polynomial of power {self.power:g} lowers the rate already")
        if list(self.milestones) != sorted({*self.milestones}):
            raise ValueError(f"milestones must rise: {list(self.milestones)}")
        if self.augmentation not in ("none", "flip") and self.crop == "full":
            raise ValueError(f"augmentation '{self.augmentation}' needs a crop size")
        for side in self.crop if isinstance(self.crop, tuple) else (self.crop,):
            if side != "full" and side < self.loss_stride:
                raise ValueError(f"a crop of {side} pixels has no square of loss_stride={self.loss_stride}")
        if self.cache_features:
            if not self.freezes(0) and not self.freezes(1):
                raise ValueError("cache_features needs a frozen encoder: freeze=encoder or later.freeze=encoder")
            if self.augmentation not in ("none", "flip"):
                raise ValueError(
                    f"cache_features needs augmentation none or flip: '{self.augmentation}' never shows an image twice"
                )
            if self.accumulation > 1 or self.compile:
                raise ValueError("cache_features goes neither with accumulation nor with compile")
        return self


def _at(length: int | tuple[int, ...], step: int) -> int:
    return length if isinstance(length, int) else length[min(step, len(length)) - 1]


class EvaluationSettings(Settings):
    """Scoring of the test stream."""

    # shorter side to `size`, then centre crop; (height, width): covered, then cropped; full: the whole image as it is
    size: Size | Literal["full"] = 512
    batch: Count = 16
    # between steps of a class-incremental stream: all test images, or those that show a class learnt so far (MiB, PLOP)
    images: Literal["all", "seen"] = "all"
    # IoU of a class that is predicted and nowhere in the truth: 0, or skipped, so that no mean counts it (MiB, PLOP)
    absent: Literal["zero", "skip"] = "zero"

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _older_than(self, handler(self), ("images", "absent"))


class LoaderSettings(Settings):
    """Loading of samples; never changes a result."""

    workers: Annotated[int, Field(ge=0)] | None = None  # None: 0 for small data kept in memory, else up to 4
    cache_gib: Annotated[float, Field(ge=0)] = 20.0  # room for `training.cache_features`, of all runs together


class GivenFirst(Settings):
    """A first step that was not trained but given as a file."""

    file: str  # its name; not hashed
    sha256: str  # of the file and of its map


class RunSettings(Settings):
    """All settings of a run."""

    benchmark: str
    strategy: str
    strategy_values: dict[str, Any] = {}  # hyper-parameters, all of them
    plugins: dict[str, dict[str, Any]] = {}
    backbone: str
    backbone_values: dict[str, Any] = {}
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataSettings = DataSettings()
    stream: StreamSettings = StreamSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    loader: LoaderSettings = LoaderSettings()
    device: str = "cpu"
    first: GivenFirst | None = None

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _older_than(self, handler(self), ("first",))


class Sections(NamedTuple):
    """The sections of a run's settings."""

    data: DataSettings
    stream: StreamSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    loader: LoaderSettings


SECTIONS: dict[str, type[Settings]] = dict(Sections.__annotations__)


def build_sections(tree: Mapping[str, Any], own: Mapping[str, Path] | None = None) -> Sections:
    """All sections from plain values; raises as `build`."""
    tree = {**tree, "data": folded(tree.get("data", {}), DataSettings.model_fields)}
    return Sections(**{name: build(model, tree.get(name, {}), name, own) for name, model in SECTIONS.items()})  # type: ignore[arg-type]


class SectionOverlay(Settings):
    """Sections that a recipe may change; values are checked when the settings are resolved."""

    data: Overlay = {}
    stream: Overlay = {}
    training: Overlay = {}
    evaluation: Overlay = {}
    loader: Overlay = {}
    strategy: Overlay = {}

    def sections(self) -> dict[str, Overlay]:
        """The sections that are not empty."""
        return {key: value for key, value in self.model_dump().items() if value}


class BenchmarkRecipe(SectionOverlay):
    """A data-set family: benchmarks are named family + split, such as `voc15-5s`."""

    family: str
    summary: str
    classes: Count  # without background; of a domain-incremental stream, the domains; of a sequence, the tasks at most
    splits: tuple[str, ...]  # those that `list` shows; any that fits the classes works, see `splits.FORMS`
    backbone: str
    notes: str = ""
    paper: str = ""
    bibtex: str = ""
    split: dict[str, SectionOverlay] = {}
    backbones: dict[str, SectionOverlay] = {}
    source: Path = Path()

    @property
    def own_kinds(self) -> dict[str, Path]:
        """The kinds of task that the recipe names as `file.py:Class`, and its folder: paths are relative to it."""
        tasks = [task for part in (self, *self.split.values()) for task in part.stream.get("tasks", ())]
        return {task["kind"].partition("(")[0].strip(): self.source.parent for task in tasks if is_own(task)}


class StrategyRecipe(Settings):
    """A method: its class, its paper, and its deviations from the paper."""

    name: str
    kind: Literal["strategy", "plugin"] = "strategy"
    class_: str = Field(alias="class")
    display: str = ""  # its name in papers, by default that of the class
    summary: str
    paper: str = ""
    bibtex: str = ""
    deviations: tuple[str, ...] = ()
    arguments: Overlay = {}  # of a stock Avalanche plugin's constructor
    benchmarks: dict[str, SectionOverlay] = {}  # by benchmark name, * matches anything
    networks: dict[str, str] = {}  # the backbone of a method that needs one of its own, by benchmark name as well
    source: Path = Path()


def read_recipe(path: Path, model: type[Model]) -> Model:
    """One recipe file; RecipeError, which names file and key, where it cannot be used."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    try:
        anchor_data(content, path.parent)
        count_classes(content)
        recipe = build(model, {**content, "source": path})
        overlays = [recipe] if isinstance(recipe, SectionOverlay) else []
        for group in ("split", "backbones", "benchmarks"):
            overlays += getattr(recipe, group, {}).values()
        for overlay in overlays:
            for section, values in overlay.sections().items():
                if section in SECTIONS and isinstance(values.get("tasks"), list):  # a user's are imported when needed
                    values = {**values, "tasks": [task for task in values["tasks"] if not is_own(task)]}
                if section == "data":
                    values = folded({**getattr(recipe, "data", {}), **values}, DataSettings.model_fields)
                if section in SECTIONS:
                    build(SECTIONS[section], values, section)
    except (SpecError, SettingError) as error:
        raise RecipeError(f"{path}: {error}") from error
    return recipe


def build(
    model: type[Model], values: Mapping[str, Any], prefix: str = "", own: Mapping[str, Path] | None = None
) -> Model:
    """A settings model from plain values; SettingError names key, value and what is allowed.

    `own`: classes of a user's own that tasks may be of, see `BenchmarkRecipe.own_kinds`.
    """
    context = {"own": own or {}}
    try:
        return validated(model, values, context)
    except ValidationError as error:
        raise SettingError(first_fault(error, model, prefix)) from error
