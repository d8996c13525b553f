"""`densecl inspect`: a run on one screen: settings, steps, scores of each class, confused classes, files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.filesize import pick_unit_and_suffix
from rich.table import Table
from rich.text import Text

from densecl.finished.trusted import read_run
from densecl.records.layout import ranges
from densecl.records.record import Record, flatten
from densecl.tables.measure import METRIC_NAMES
from densecl.terminal import humanise, text_console

WIDTH = 80  # columns where there is no terminal
PAIRS = 10  # pairs of classes that are shown
FILES = 40  # files that are listed by name; of more, folders


class Confusion(NamedTuple):
    """Pixels of one class that are predicted as another."""

    true: int  # label
    predicted: int
    pixels: int
    share: float  # of all pixels of the true class


class Part(NamedTuple):
    """A file of a run, or all files of a folder below it: their number, and bytes."""

    name: str
    count: int
    size: int


class Block(NamedTuple):
    """A part of the screen; the title may be wider than the table."""

    title: str
    table: Table
    remark: str = ""


def confusions(matrix: Sequence[Sequence[int]], learnt: Iterable[int], count: int = PAIRS) -> list[Confusion]:
    """The `count` pairs of classes that are confused most, as shares of the true class; `learnt` labels alone count.

    `matrix` has counts of pixels, true label by predicted label.
    """
    pairs = [
        Confusion(true, predicted, pixels, pixels / sum(matrix[true]))
        for true in learnt
        for predicted, pixels in enumerate(matrix[true])
        if predicted != true and pixels
    ]
    return sorted(pairs, key=lambda pair: (-pair.share, pair.true, pair.predicted))[:count]


def files_of(folder: Path, limit: int = FILES) -> list[Part]:
    """The files of a run by name; if there are more than `limit`, those of each folder together."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    parts = [Part(path.relative_to(folder).as_posix(), 1, path.stat().st_size) for path in files]
    if len(parts) <= limit:
        return parts
    folders: dict[str, Part] = {}
    for part in parts:
        top, slash, _ = part.name.partition("/")
        before = folders.get(top + slash, Part(top + slash, 0, 0))
        folders[top + slash] = Part(before.name, before.count + 1, before.size + part.size)
    return list(folders.values())


def describe_run(folder: Path, *, width: int | None = None, colour: bool = False) -> str:
    """The run as text that ends in a newline; `colour` if the terminal of `width` columns understands escape codes."""
    record, width = read_run(folder), width or WIDTH
    scores = _sequence(record) if record.tasks else [_steps(record), *_classes(record, width)]
    console = text_console(width, colour)
    with console.capture() as capture:
        console.print(_heading(record))
        for block in [_settings(record), *scores, *_confusions(record), _files(folder)]:
            console.print()
            if block.title:
                console.print(Text(block.title, style="bold"), soft_wrap=True)
            console.print(block.table)
            if block.remark:
                console.print(Text(block.remark, style="dim"))
    return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())


# ---- the blocks


def _table(*headings: str, left: int = 1) -> Table:
    """An empty table, whose first columns are words and all others numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        words = number < left
        table.add_column(heading, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    return table


def _heading(record: Record) -> Text:
    planned = len(record.planned_steps)
    done = f"{len(record.steps)} of {planned} steps" if record.status != "finished" and planned else ""
    words = [record.benchmark, record.strategy, record.backbone, f"seed {record.seed}", record.hash, record.status]
    words += [done] * bool(done) + ["record changed"] * record.edited
    return Text("  ".join(words), style="bold")


def _settings(record: Record) -> Block:
    """The settings, one row per section of `--set`, without empty values."""
    table = _table("section", "values", left=2)
    plain = {key: value for key, value in record.settings.items() if not isinstance(value, dict)}
    sections = {key: value for key, value in record.settings.items() if isinstance(value, dict)}
    plugins = sections.pop("plugins", {})
    own = {part: sections.pop(f"{part}_values", {}) for part in ("strategy", "backbone")}
    sections = {"run": plain, **own, **plugins, **sections}
    versions = {key: record.environment.get(key) for key in ("git", "torch", "gpu", "threads", "world")}
    sections["environment"] = {"densecl": record.densecl, **versions}
    sections |= {} if record.foreign is None else {"foreign": record.foreign.model_dump()}
    for name, values in sections.items():
        shown = [f"{key}={_value(value)}" for key, value in flatten(values).items() if value not in (None, "", {}, [])]
        if shown:
            table.add_row(Text(name), Text(", ".join(shown)))
    return Block("settings", table)


def _steps(record: Record) -> Block:
    table = _table("step", "classes", "iterations", "time", "mIoU", "previous", "current", "forgetting", left=2)
    for step in record.steps:
        metrics = step.evaluations[0].metrics if step.evaluations else {}
        miou = metrics.get("miou", {})
        values = (*map(miou.get, ("all", "previous", "current")), metrics.get("forgetting"))
        row = (str(step.step), Text(ranges(step.new_classes)), f"{step.iterations}", _time(step))
        table.add_row(*row, *map(_percent, values))
    return Block("steps (mIoU and forgetting in %)", table, _remark(record))


def _classes(record: Record, width: int) -> list[Block]:
    """IoU of each class by step, in as many tables as the width needs."""
    steps = [step for step in record.steps if step.evaluations]
    label = max((len(name) for name in record.class_names), default=0)
    number = len(str(len(record.class_names)))
    columns = max(1, (width - number - 2 - label - 2) // 7)
    blocks = []
    for first in range(0, len(steps), columns):
        shown = steps[first : first + columns]
        table = _table("", "class", *(str(step.step) for step in shown), left=2)
        for k, name in enumerate(record.class_names):
            values = [step.evaluations[0].metrics.get("iou", []) for step in shown]
            table.add_row(str(k), Text(name), *(_percent(iou[k]) if k < len(iou) else "-" for iou in values))
        blocks.append(Block("" if first else "IoU of each class after each step (%)", table))
    return blocks


def _confusions(record: Record) -> list[Block]:
    """The confused classes after the last step, of each task of segmentation."""
    blocks = []
    for number, evaluation in enumerate(record.steps[-1].evaluations if record.steps else ()):
        names = record.tasks[number].class_names if record.tasks else record.class_names
        if evaluation.confusion is None or not names:
            continue
        learnt = range(1 if names[0] == "other" else 0, len(names)) if record.tasks else _learnt(record)
        table = _table("true", "predicted", "share", "pixels", left=2)
        for pair in confusions(evaluation.confusion, learnt):
            row = (Text(names[pair.true]), Text(names[pair.predicted]), f"{100 * pair.share:.1f} %", f"{pair.pixels:,}")
            table.add_row(*row)
        of = f" of {evaluation.task}" if record.tasks else ""
        if table.row_count:
            blocks.append(Block(f"taken for another class{of}, after step {record.steps[-1].step}", table))
    return blocks


def _sequence(record: Record) -> list[Block]:
    """Cost and stored bytes of each step, then the scores by task and step."""
    steps = _table("step", "task", "iterations", "time", "size", "file", left=2)
    for step in record.steps:
        size, file = ("-", "-") if step.model is None else (_bytes(step.model.formula), _bytes(step.model.file))
        steps.add_row(str(step.step), Text(step.task), f"{step.iterations}", _time(step), size, file)
    scores = _table("task", "metric", *(f"after {step.step}" for step in record.steps), left=2)
    for number, task in enumerate(record.tasks):
        evaluations = [step.evaluations[number : number + 1] for step in record.steps]
        cells = [_score(evaluation[0].metrics.get(task.primary)) if evaluation else "" for evaluation in evaluations]
        better = "higher" if task.higher_is_better else "lower"
        metric = f"{METRIC_NAMES.get(task.primary, task.primary)}, {better} is better"
        scores.add_row(Text(task.name), Text(metric), *cells)
    title = "score of each task after each step (mIoU in %)"
    return [Block("steps", steps, _remark(record)), Block(title, scores)]


def _files(folder: Path) -> Block:
    parts = files_of(folder)
    table = _table("name", "files" if any(part.count > 1 for part in parts) else "", "size")
    for part in parts:
        table.add_row(Text(part.name), str(part.count) if part.count > 1 else "", _bytes(part.size))
    table.add_row("in all", "", _bytes(sum(part.size for part in parts)))
    return Block(f"files in {folder}", table)


# ---- words


def _learnt(record: Record) -> list[int]:
    """Labels that the run can predict: background, where there is one, and the classes of finished steps."""
    classes = sorted({label for step in record.steps for label in step.new_classes} - {0})
    return [*([0] if record.has_background else []), *classes]


def _time(step: Any) -> str:
    return humanise(step.seconds) + ("*" if step.shared else "")


def _remark(record: Record) -> str:
    return "* loaded: another run with the same first step trained it" if any(s.shared for s in record.steps) else ""


def _score(value: Any) -> str:
    if isinstance(value, dict):
        return _percent(value.get("all"))
    return "-" if value is None else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{round(100 * share, 1) + 0.0:.1f}"  # + 0.0: no -0.0


def _value(value: Any) -> str:
    """A value as `--set` takes it, on one line; of a long list, its ends."""
    if isinstance(value, list | tuple) and len(value) > 12:
        return f"[{value[0]}, {value[1]}, ... {value[-1]}]"
    return str(value).replace("'", "")


def _bytes(count: int | None) -> str:
    """`312 B`, `4.0 KiB`, `12.3 MiB`."""
    if count is None:
        return "-"
    unit, suffix = pick_unit_and_suffix(count, ["B", "KiB", "MiB", "GiB"], 1024)
    return f"{count / unit:.{int(unit > 1)}f} {suffix}"
