"""The record of a run, `result.json`: rewritten after every step, and the only file that tables and reports read.

Labels: 0 is background (or, without background, "other"), classes follow in order of arrival. `class_names[label]`.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from densecl.errors import RecordError, SettingError
from densecl.files import write_text
from densecl.records.foreign import Foreign
from densecl.settings.faults import first_fault, one_line, shown

SCHEMA = 1
FILE_NAME = "result.json"
APART = ".apart"  # a folder with this file is left out of tables of the folders above it
UNHASHED = ("data.root", "loader", "device")  # settings that must not change the numbers, hence not in a run's hash
# names of a record that options use as keys
OWN = ("benchmark", "strategy", "backbone", "seed", "status", "hash", "densecl", "resumable", "oracle")
ENVIRONMENT = "environment."
SECTIONS = ("data", "stream", "training", "evaluation", "loader", "strategy_values", "backbone_values", "plugins")


def plain(value: Any) -> Any:
    """`value` as JSON holds it: tuples become lists, NumPy scalars Python's, NaN and infinity None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if not isinstance(value, bool | int | float | str) and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


Tree = Annotated[dict[str, Any], BeforeValidator(plain)]
Label = Annotated[int, Field(ge=0)]
Pixels = Annotated[int, Field(ge=0, lt=2**63)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", serialize_by_alias=True, validate_by_name=True, validate_by_alias=True
    )


class Evaluation(_Model):
    """Scores on the test stream of one task.

    Segmentation has `miou` (all, base, added, previous, current; background counted where there is one), `iou` (one
    value a label, None where a label is neither present nor predicted) and `forgetting`; other tasks their own scalars.
    """

    task: str
    metrics: Tree
    confusion: list[list[Pixels]] | None = None  # rows: true labels, also of classes to come; columns: predictions

    @field_validator("metrics")
    @classmethod
    def _numbers(cls, metrics: dict[str, Any]) -> dict[str, Any]:
        for key, value in metrics.items():
            kind = {"iou": list, "miou": dict}.get(key)
            if kind is None:
                if not _number_or_none(value):
                    raise ValueError(f"{key} must be a number or null")
            elif not isinstance(value, kind):
                raise ValueError(f"{key} must be a {kind.__name__}")
            elif not all(map(_number_or_none, value.values() if isinstance(value, dict) else value)):
                raise ValueError(f"{key} must hold numbers or null")
        return metrics

    @field_validator("confusion")
    @classmethod
    def _square(cls, confusion: list[list[int]] | None) -> list[list[int]] | None:
        if confusion is not None and any(len(row) != len(confusion) for row in confusion):
            raise ValueError("it must have as many columns as rows")
        return confusion


class TaskRecord(_Model):
    """A task of a sequence."""

    name: str
    kind: str
    primary: str  # the metric it is ranked by; of segmentation, the mean over all classes
    higher_is_better: bool
    class_names: list[str] = []
    settings: Tree = {}  # that decide its losses and scores


class Stored(_Model):
    """Size in bytes of all that must be kept to perform every task learnt so far."""

    tensors: int = Field(ge=0)  # all values, each once
    file: int = Field(ge=0)  # a safetensors file of them
    formula: int | None = Field(default=None, ge=0)  # from the counts of parameters, where the method has a formula


class StepRecord(_Model):
    """One finished step."""

    step: int = Field(ge=0)
    task: str
    new_classes: list[Label]
    iterations: int = Field(ge=0)
    seconds: float = Field(ge=0, allow_inf_nan=False)  # of training
    peak_memory: int | None = None  # bytes on the accelerator
    stored_bytes: int = Field(default=0, ge=0)  # kept from earlier steps: replayed samples, teachers, masks
    parameters: int | None = Field(default=None, ge=0)  # numbers that predict; running statistics are not counted
    model: Stored | None = None  # of a sequence of tasks
    shared: bool = False  # the first step was loaded from another run's
    notes: dict[str, Tree] = {}  # of plugins, by name: such as the banks of synthetic images that were replayed
    evaluations: list[Evaluation] = []


class Record(_Model):
    """Settings of a run, and its scores after each step."""

    schema_version: int = Field(default=SCHEMA, alias="schema")  # checked by `read_record`
    densecl: str
    benchmark: str
    strategy: str
    backbone: str
    seed: int
    hash: str
    status: Literal["running", "finished", "interrupted", "failed"]
    resumable: bool = True
    oracle: str | None = None  # what the strategy is told at test time, such as "task"
    foreign: Foreign | None = None  # of predictions that another code made
    settings: Tree
    environment: Tree
    class_names: list[str]
    has_background: bool
    tasks: list[TaskRecord] = []  # of a sequence; empty for one task whose classes arrive over time
    planned_steps: list[list[Label]] = []  # classes of each step of the benchmark's stream, which `joint` trains as one
    steps: list[StepRecord] = []
    edited: bool = Field(default=False, exclude=True)  # True if the file was changed after densecl wrote it

    def write(self, path: Path) -> None:
        """Write the record atomically, with a digest of its content."""
        own = {"foreign"} if self.foreign is None else None
        content = plain(self.model_dump(mode="json", by_alias=True, exclude=own))
        content |= {"digest": _digest(content)}
        write_text(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


class Found(NamedTuple):
    """A record and the file it was read from."""

    path: Path
    record: Record


def read_record(path: Path) -> Record:
    """Read and check a record; one that was changed by hand and is consistent is marked as `edited`.

    Raises:
        RecordError: naming the file and its first fault.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "schema" not in content:
            raise RecordError(f"{path} is not a record of densecl: it has no 'schema'")
        if content["schema"] != SCHEMA:
            schema = shown(content["schema"])
            raise RecordError(f"{path} has schema {schema}, and this version of densecl reads {SCHEMA}")
        digest = content.pop("digest", None)  # older records have none
        record = Record.model_validate(content, strict=True)
        if (fault := next(_faults(record), None)) is not None:
            raise RecordError(f"{path}: {fault}")
        edited = digest not in (None, _digest(content)) or record.environment.get("edited") is True
        return record.model_copy(update={"edited": edited})
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except ValidationError as error:
        raise RecordError(f"{path}: {first_fault(error, Record)}") from error
    except RecursionError as error:
        raise RecordError(f"{path} is nested too deeply") from error
    except ValueError as error:
        raise RecordError(f"{path} is not JSON: {one_line(error)}") from error


def _digest(content: dict[str, Any]) -> str:
    """SHA-256 over a record's content, in whichever way its file is laid out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _faults(record: Record) -> Iterator[str]:
    """Fields that contradict each other, so that nobody who reads a record need look again."""
    tasks, count, planned = record.tasks, len(record.class_names), record.planned_steps
    groups = [*planned, *(step.new_classes for step in record.steps)]
    highest = max((label for group in groups for label in group), default=0)
    if not tasks and highest >= count:
        yield f"a step has the label {highest}, and 'class_names' {count} names"
    sections = {key: record.settings.get(key, {}) for key in SECTIONS}
    sections |= sections["plugins"] if isinstance(sections["plugins"], dict) else {}
    for key, values in sections.items():
        if not isinstance(values, dict):
            yield f"'settings.{key}' is {shown(values)}, and must hold keys and values"
    if planned and len(record.steps) > len(planned):
        yield f"'steps' has {len(record.steps)}, and 'planned_steps' {len(planned)}"
    for number, step in enumerate(record.steps):
        if step.step != number:
            yield f"'steps.{number}.step' is {step.step}"
        if len(step.evaluations) > max(1, len(tasks)):
            yield f"'steps.{number}.evaluations' has more than the run has tasks"
        for k, evaluation in enumerate(step.evaluations):
            place, names = f"'steps.{number}.evaluations.{k}", len(tasks[k].class_names) if tasks else count
            iou, matrix = evaluation.metrics.get("iou"), evaluation.confusion
            for key, value in (("metrics.iou", iou), ("confusion", matrix)):
                if value is not None and len(value) != names:
                    yield f"{place}.{key}' has {len(value)} entries, and there are {names} classes"
            if tasks and isinstance(evaluation.metrics.get(tasks[k].primary), list):
                yield f"'tasks.{k}.primary' is '{tasks[k].primary}', which is no single score"
            yield from _false_scores(record, number, k)


def _false_scores(record: Record, number: int, k: int) -> Iterator[str]:
    """Scores that do not follow from their matrix; where a record does not say how they do, they are not looked at."""
    from densecl.metrics.iou import UNSEEN, class_metrics, foreground_mean, iou_from_confusion

    stream, measured = (record.settings.get(key, {}) for key in ("stream", "evaluation"))
    step, labels, skips = record.steps[number], str(stream.get("labels")), measured.get("absent") == "skip"
    metrics, matrix = step.evaluations[k].metrics, cast(Any, step.evaluations[k].confusion)  # NumPy takes lists
    if not matrix or (labels not in UNSEEN and not record.tasks):
        return
    if record.tasks:
        iou = iou_from_confusion(matrix)
        mean = foreground_mean(iou, range(len(iou)), background=record.tasks[k].class_names[0] != "other")
        true: dict[str, Any] = {"iou": [None if value != value else value for value in iou], "miou": {"all": mean}}
    else:
        groups = record.planned_steps or [done.new_classes for done in record.steps]
        ious = [done.evaluations[0].metrics.get("iou") if done.evaluations else None for done in record.steps[:number]]
        known = [iou or [None] * len(matrix) for iou in ious]
        joint = len(step.new_classes) > len(groups[0])
        facts: Any = {"joint": joint, "has_background": record.has_background, "labels": labels}
        facts["absent"] = "skip" if skips else "zero"
        true = class_metrics(matrix, groups, number, known, **facts)
    told, true = (flatten({**scores, "iou": dict(enumerate(scores.get("iou") or ()))}) for scores in (metrics, true))
    for key in told.keys() & true.keys():
        one, other = (-1.0 if value is None else value for value in (told[key], true[key]))
        if abs(one - other) > 1e-6:
            yield f"'{key}' after step {number} is {told[key]}, and the matrix gives {true[key]}"


def find_records(folder: Path) -> tuple[list[Found], list[RecordError]]:
    """Read every `result.json` in and below `folder`, in order of path; also the errors of what cannot be read.

    Links to folders are followed, each folder once. Folders below it that hold a file named `APART` are left out.
    """
    paths, faults = _paths(Path(folder))
    records: list[Found] = []
    for path in sorted(paths):
        try:
            records.append(Found(path, read_record(path)))
        except RecordError as error:
            faults.append(error)
    return records, faults


def _paths(folder: Path) -> tuple[list[Path], list[RecordError]]:
    """The places of all records, and the errors of folders that cannot be read."""
    if folder.is_file():
        return [folder], []
    paths: list[Path] = []
    faults: list[RecordError] = []
    seen: set[tuple[int, int]] = set()  # a folder is one, by whatever links it is reached
    runs: set[Path] = set()  # and what is below them

    def tell(error: OSError) -> None:
        faults.append(RecordError(f"cannot read {error.filename}: {error.strerror or error}"))

    for name, folders, files in os.walk(folder, onerror=tell, followlinks=True):
        place = Path(name)
        status = place.stat()
        own = (status.st_dev, status.st_ino)
        if own in seen or (APART in files and place != folder):
            folders.clear()
            continue
        seen.add(own)
        folders[:] = sorted(folders, key=lambda below, place=place: (place.joinpath(below).is_symlink(), below))
        if FILE_NAME in files:
            paths.append(place / FILE_NAME)
        if FILE_NAME in files or place.parent in runs:
            runs.add(place)
            continue
        dead = [link for link in map(place.joinpath, files) if link.is_symlink() and not link.exists()]
        faults += [
            RecordError(f"cannot read {link}: it is a link to {link.readlink()}, which is not there") for link in dead
        ]
    return paths, faults


def identity(record: Record, without: Sequence[str] = UNHASHED) -> dict[str, Any]:
    """The settings under dotted keys, without the seed and those in and below the keys of `without`."""
    left_out = ("seed", *without)
    return {
        key: value
        for key, value in flatten(record.settings).items()
        if not any(key == other or key.startswith(f"{other}.") for other in left_out)
    }


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def facts(record: Record) -> dict[str, Any]:
    """Values under dotted keys: settings (`training.lr`), `environment.torch`, `foreign.digest`, the names in `OWN`."""
    own = {key: getattr(record, key) for key in OWN}
    foreign = {} if record.foreign is None else flatten(record.foreign.model_dump(), "foreign.")
    return flatten(record.settings) | flatten(record.environment, ENVIRONMENT) | foreign | own


def resolve(name: str, known: set[str], option: str) -> str:
    """The full key of a name: itself, or the only key that ends in it (`setting` is `stream.setting`).

    A setting goes before a key of the environment that ends alike. Messages name the `option`, such as `--filter`.
    """
    if name in known:
        return name
    matches = sorted(key for key in known if key.endswith(f".{name}"))
    preferred = [key for key in matches if not key.startswith(ENVIRONMENT)] or matches
    if len(preferred) == 1:
        return preferred[0]
    if matches:
        listed = f"{', '.join(matches[:-1])} or {matches[-1]}"
        raise SettingError(f"{option}: '{name}' could be {listed}", "write one of them")
    parts = [key.split(".") for key in known]
    endings = {".".join(words[start:]) for words in parts for start in range(len(words))}
    near = get_close_matches(name, sorted(endings), n=1, cutoff=0.6)
    hint = f"did you mean '{near[0]}'?" if near else "densecl inspect RUN lists the settings of a run"
    raise SettingError(f"{option}: no run has a key '{name}'", hint)


def _number_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
