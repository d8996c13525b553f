"""Numbers of papers: one TOML a paper, each number with its place, its protocol and how sure we are of it.

A file has `name`, `paper` and `tables`; a table has the keys that its rows share, then `rows`; a row overrides the
table. An absent key means that the source does not say.
"""

import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from densecl.errors import RecipeError, UnknownNameError
from densecl.settings.faults import first_fault

Certainty = Literal["read", "computed", "from memory"]
Part = Literal["base", "added", "all"]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
PARTS: tuple[Part, ...] = ("base", "added", "all")
FILE_KEYS = ("name", "paper", "note", "tables")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Values(_Model):
    """Mean IoU in percent after the last step; None where the source does not give it."""

    base: Percent | None = None
    added: Percent | None = None
    all: Percent | None = None


class Images(_Model):
    """Number of images of the whole stream."""

    train: int
    test: int


class Reported(_Model):
    """One row of a paper's table."""

    # where it stands
    file: Path = Path()
    name: str  # short, as tables show it
    paper: str
    table: str
    page: str = ""
    source: str = Field(min_length=1)  # what was read: the paper, or a file or page of a repository
    certainty: Certainty = "read"
    certainty_of: dict[Part, Certainty] = {}  # of single values, where it differs
    inferred: tuple[str, ...] = ()  # keys of this row that the source does not state
    remark: str = ""
    # what was run
    benchmark: str
    method: str
    variant: str = ""  # what tells rows of one method apart
    setting: Literal["overlapped", "disjoint", "sequential", "partitioned"] | None = None
    labels: Literal["mib2020", "plop2021", "strict"] | None = None
    grouping: Literal["fg-only", "with-bg", "mixed"] | None = None
    backbone: str | None = None  # in the grammar: deeplabv3(encoder=resnet101)
    pretrained: bool | None = None
    images: Images | None = None
    settings: dict[str, dict[str, Any]] = {}  # sections of a run's settings, as far as they are known
    strategy: dict[str, Any] = {}  # hyper-parameters
    task: int | None = None  # of a sequence of tasks, counted from 1 as the papers do
    after: int | None = None  # the task trained last when it was measured
    # what came out
    values: Values | None = None
    measures: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}  # other scores, by name and unit
    consistent: bool = True  # false where base and added, as printed, do not average to all
    rounding: float = Field(default=0.1, gt=0)  # one unit of the last printed place, in percent

    @property
    def label(self) -> str:
        """`MiB, Table 1`."""
        return f"{self.name}, {self.table}"

    @property
    def about(self) -> str:
        """Method, variant, and of a sequence the task and the one learnt last: `piggyback, task 2 after task 3`."""
        place = [f"task {self.task}"] if self.task else []
        place += [f"after task {self.after}"] if self.after else []
        return ", ".join(part for part in (self.method, self.variant, " ".join(place)) if part)

    @property
    def numbers(self) -> dict[str, float | None]:
        """The published numbers by name, in percent or a unit of their own."""
        if self.values is None:
            return dict(self.measures)
        return {part: getattr(self.values, part) for part in PARTS}

    @property
    def states_training(self) -> bool:
        """True if the source says how it trained."""
        return bool(self.settings.get("training"))

    def sure(self, name: str) -> Certainty:
        """The certainty of one value."""
        for part, certainty in self.certainty_of.items():
            if part == name:
                return certainty
        return self.certainty

    @model_validator(mode="after")
    def _consistent(self) -> "Reported":
        if (self.values is None) == (not self.measures):
            raise ValueError("needs either values or measures")
        if self.values is not None and all(getattr(self.values, part) is None for part in PARTS):
            raise ValueError("gives no value")
        for key in self.inferred:
            if key not in type(self).model_fields:
                raise ValueError(f"infers the unknown key '{key}'")
        return self


def read_published(path: Path) -> list[Reported]:
    """Read all rows of one file.

    Raises:
        RecipeError: not TOML, an unknown or missing key, a wrong value; the message names file, row and key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot read the published numbers {path}: {error}") from error
    _check_keys(content, FILE_KEYS, f"{path}")
    for key in ("name", "paper", "tables"):
        if key not in content:
            raise RecipeError(f"{path}: the key '{key}' is missing")
    if not (isinstance(content["tables"], list) and all(isinstance(table, dict) for table in content["tables"])):
        raise RecipeError(f"{path}: 'tables' must be written as [[tables]]")
    own = {"file": path, "name": content["name"], "paper": content["paper"]}
    own_keys = [key for key in Reported.model_fields if key not in own]
    result: list[Reported] = []
    for index, table in enumerate(content["tables"]):
        place = f"{path}: tables[{index}]"
        shared = {key: value for key, value in table.items() if key != "rows"}
        rows = table.get("rows")
        if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
            raise RecipeError(f"{place} has no rows")
        _check_keys(shared, own_keys, place)
        for number, row in enumerate(rows):
            _check_keys(row, own_keys, f"{place}.rows[{number}]")
            merged = {**shared, **row, **own}
            if "settings" in shared and "settings" in row:
                merged["settings"] = _nested(shared["settings"], row["settings"])
            try:
                result.append(Reported.model_validate(merged))
            except ValidationError as error:
                raise RecipeError(f"{place}.rows[{number}]: {first_fault(error, Reported)}") from error
    return result


def read_all(files: Iterable[Path]) -> list[Reported]:
    """Read the rows of all files."""
    return [row for path in files for row in read_published(path)]


# families that are another recipe on the same stream
RECIPES_OF = {"voc-disalvo": "voc", "voc-mib": "voc", "voc-plop": "voc", "voc-dkd": "voc", "voc-ssul": "voc"}
RECIPES_OF |= {"ade20k-mib": "ade", "ade20k-plop": "ade", "ade20k-dkd": "ade", "ade20k-ssul": "ade"}


def canonical(benchmark: str) -> tuple[str, str]:
    """Family and split, `15-5s` written as `15-1`: ('voc', '15-1') of voc15-5s; a sequence of tasks has no split."""
    match = re.fullmatch(r"(.*?)(\d+-\d+s?)", benchmark)
    if match is None:
        return re.sub(r"-\d+tasks?$", "", benchmark), ""
    split = match[2]
    return RECIPES_OF.get(match[1], match[1]), re.sub(r"-\d+s$", "-1", split)


def _check_keys(keys: Iterable[str], known: Sequence[str], place: str) -> None:
    for key in keys:
        if key not in known:
            raise RecipeError(f"{place}: {UnknownNameError('key', key, known)}")


def _nested(base: Any, overlay: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(overlay, dict)):
        return overlay
    return {**base, **{key: _nested(base.get(key), value) for key, value in overlay.items()}}
