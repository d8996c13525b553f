"""The settings of one task of a sequence: keys that all tasks have, and those that the class of its kind declares."""

import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PydanticUserError,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from densecl.errors import SettingError
from densecl.settings.catalogue import load_class
from densecl.settings.grammar import parse_one

Positive = Annotated[float, Field(gt=0)]
MOST = 2**31 - 1  # torch and Python's loops take no larger counts
Count = Annotated[int, Field(ge=1, le=MOST)]
Side = Annotated[int, Field(ge=2, le=MOST)]  # pixels; torch cannot resize an image to a single one
Size = Side | tuple[Side, Side]

FILES = (Path(__file__).parents[1] / "tasks").glob("*.py")
KINDS = tuple(sorted(path.stem for path in FILES if path.stem not in ("__init__", "base")))


class TaskSettings(BaseModel):
    """The keys of every task; a kind's own are fields of a subclass. None: as training and evaluation say."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cls: ClassVar[Any]  # the class of the kind, a `tasks.Task`

    name: str
    kind: str
    data: str  # data set
    split: Literal["train", "trainval"] = "train"
    crop: Size | Literal["full"] | None = None
    size: Size | Literal["full"] | None = None  # of evaluated images
    # the k-th of n consecutive parts of the training images, [k, n], so that tasks share none; None: all of them
    images: tuple[Count, Count] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.images is not None and self.images[0] > self.images[1]:
            raise ValueError(f"images [{self.images[0]}, {self.images[1]}] is no part: write [k, n], part k of n")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later, at its default: runs from before keep their hash."""
        content = handler(self)
        return content if self.images else {key: value for key, value in content.items() if key != "images"}

    @property
    def values(self) -> dict[str, Any]:
        """The settings of the kind."""
        return {key: getattr(self, key) for key in self.cls.declared()}

    def by_content(self, context: Any) -> dict[str, Any]:
        """All keys for the hash of a run: files and a user's class by what they hold, not by their path."""
        content = {**self.model_dump(mode="json"), **self.cls.content(self.values, context)}
        file, colon, name = self.kind.rpartition(":")
        return {**content, "kind": f"{Path(file).name}:{name}", "source": self.cls.source()} if colon else content


@cache
def kind_class(kind: str, base: Path | None = None) -> Any:
    """The class of a kind: the one of that `kind` in `densecl/tasks/KIND.py`, or `file.py:Class` relative to `base`."""
    if ":" not in kind:
        module = importlib.import_module(f"densecl.tasks.{kind}")
        classes = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
        return next(value for value in classes if getattr(value, "kind", None) == kind)
    cls: Any = load_class(kind, base)
    if not issubclass(cls, load_class("densecl.tasks.base:Task")) or not hasattr(cls, "kind"):
        raise SettingError(f"'{kind}' is no kind of task", "subclass densecl.tasks.Task and give the class a kind")
    if taken := sorted(cls.declared().keys() & {*TaskSettings.model_fields, "cls", "values"}):
        raise SettingError(f"{kind}: '{taken[0]}' is a key of every task", "give the setting another name")
    return cls


def is_own(task: Any) -> bool:
    """True if the task of a recipe is of a user's class."""
    return isinstance(task, Mapping) and ":" in str(task.get("kind")).partition("(")[0]


def of_kind(values: Any, info: ValidationInfo) -> Any:
    """Check a task with the keys of its kind.

    A user's class is imported only where the context's `own` has it: {reference: the folder it is relative to}.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get("kind"), str):
        return values  # complete already, or refused by the fields themselves
    call, own = parse_one(values["kind"], "kind of task"), (info.context or {}).get("own", {})
    kind, values = call.name, {**values, "kind": call.name, **call.arguments}
    if kind not in KINDS and kind not in own:
        message = (
            "a class of one's own is imported only for a recipe that names it, see --catalogue"
            if is_own(values)
            else f"known kinds: {', '.join(KINDS)}; or file.py:Class for one of your own"
        )
        raise _fault("kind", kind, "value_error", message)
    return complete(kind_class(kind, own.get(kind)), values)


def complete(cls: Any, values: Mapping[str, Any]) -> TaskSettings:
    """The settings of a task of a class, with the defaults of its kind; ValueError for a key or value that is wrong."""
    declared = cls.declared()
    known, values = [*TaskSettings.model_fields, *declared], dict(values)
    for key in [key for key in values if key not in known]:
        owner = next((other for other in KINDS if key in kind_class(other).declared()), None)
        if owner is None:
            raise _fault(key, values[key], "extra_forbidden", "unknown", known)
        if values.pop(key) != kind_class(owner).declared()[key][1]:
            raise ValueError(f"'{key}' is of {owner}, and task '{values.get('name')}' is {values.get('kind')}")
    for key, (_, default) in declared.items():
        if default is ... and values.get(key) is None:
            raise ValueError(f"task '{values.get('name')}' needs a {key}")
    return _model(cls).model_validate(values)


AnyTask = Annotated[SerializeAsAny[TaskSettings], BeforeValidator(of_kind)]


@cache
def _model(cls: Any) -> type[TaskSettings]:
    """The keys of every task and of a kind."""
    try:
        model = create_model(cls.__name__, __base__=TaskSettings, **cls.declared())
    except PydanticUserError as error:  # a type that no recipe can hold, such as a tensor
        raise SettingError(f"{cls.__name__}: a setting's type cannot be checked: {error.message}") from error
    model.cls = cls
    return model


def _fault(key: str, value: Any, kind: Any, message: str, known: list[str] | None = None) -> ValidationError:
    """A fault of one key, whose place pydantic completes."""
    error = PydanticCustomError(kind, "{message}", {"message": message, "known": known})
    return ValidationError.from_exception_data("task", [InitErrorDetails(type=error, loc=(key,), input=value)])
