"""`densecl inspect`: a run on one screen: settings, steps, scores of each class, what is taken for what, files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from densecl.errors import RecordError
from densecl.records.layout import ranges
from densecl.records.record import FILE_NAME, Record, find_records, flatten, read_record
from densecl.tables.forms.text import humanise
from densecl.tables.measure import METRIC_NAMES
from densecl.terminal import text_console

WIDTH = 80  # columns where there is no terminal
PAIRS = 10  # pairs of classes that are shown
FILES = 40  # files that are listed by name; of more, folders


class Confusion(NamedTuple):
    """Pixels of one class that are taken for another.

    Attributes:
        true, predicted: labels.
        pixels: how many.
        share: of all pixels of the true class.
    """

    true: int
    predicted: int
    pixels: int
    share: float


class Part(NamedTuple):
    """A file of a run, or several of one folder: where they are in the run's folder, how many, their bytes."""

    name: str
    count: int
    size: int


def read_run(folder: Path) -> Record:
    """The record of a run.

    Raises:
        RecordError: the folder is none of a run, or its record cannot be read.
    """
    path = folder / FILE_NAME
    if path.is_file():
        return read_record(path)
    below = [found.path.parent for found in find_records(folder)[0]] if folder.is_dir() else []
    advice = f"name the folder of one run, such as {below[0]}" if below else "name the folder of one run"
    raise RecordError(f"{folder} is not a run: it has no {FILE_NAME}", advice)


def confusions(matrix: Sequence[Sequence[int]], learnt: Iterable[int], count: int = PAIRS) -> list[Confusion]:
    """The pairs (true, predicted) of the largest share of the true class, of classes that have been learnt.

    Args:
        matrix: counts of pixels, true label by predicted label.
        learnt: true labels that count.
        count: pairs at most.
    """
    found = []
    for true in learnt:
        total = sum(matrix[true])
        found += [
            Confusion(true, predicted, pixels, pixels / total)
            for predicted, pixels in enumerate(matrix[true])
            if predicted != true and pixels
        ]
    return sorted(found, key=lambda pair: (-pair.share, pair.true, pair.predicted))[:count]


def files_of(folder: Path, limit: int = FILES) -> list[Part]:
    """The files of a run, in order of their names; of more than `limit`, those of each folder below it together."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    parts = [Part(path.relative_to(folder).as_posix(), 1, path.stat().st_size) for path in files]
    if len(parts) <= limit:
        return parts
    together: dict[str, Part] = {}
    for part in parts:
        top, _, rest = part.name.partition("/")
        name = f"{top}/" if rest else top
        before = together.get(name, Part(name, 0, 0))
        together[name] = Part(name, before.count + 1, before.size + part.size)
    return list(together.values())


def describe_run(folder: Path, *, width: int | None = None, colour: bool = False) -> str:
    """The run as text that ends in a newline.

    Args:
        folder: of the run.
        width: columns of the terminal, None: 80.
        colour: whether the terminal understands escape codes.

    Raises:
        RecordError: see `read_run`.
    """
    record = read_run(folder)
    width = width or WIDTH
    blocks = [_settings(record)]
    blocks += _sequence(record) if record.tasks else [_steps(record), *_classes(record, width)]
    blocks += [*_confusions(record), _files(folder)]
    console = text_console(width, colour)
    with console.capture() as capture:
        console.print(_heading(record))
        for block in blocks:
            console.print()
            if block.title:
                console.print(Text(block.title, style="bold"), soft_wrap=True)
            console.print(block.table)
            if block.remark:
                console.print(Text(block.remark, style="dim"))
    return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())


# ---- the blocks


class Block(NamedTuple):
    """A part of the screen: its title, which may be wider than the table, the table, a remark below."""

    title: str
    table: Table
    remark: str = ""


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
    return Text("  ".join([*words, done]).rstrip(), style="bold")


def _settings(record: Record) -> Block:
    """What decides the run, a row a section as `--set` has them; what is nothing is left out."""
    table = _table("section", "values", left=2)
    plain = {key: value for key, value in record.settings.items() if not isinstance(value, dict)}
    sections = {key: value for key, value in record.settings.items() if isinstance(value, dict)}
    plugins = sections.pop("plugins", {})
    own = {part: sections.pop(f"{part}_values", {}) for part in ("strategy", "backbone")}
    sections = {"run": plain, **own, **plugins, **sections}
    versions = {key: record.environment.get(key) for key in ("git", "torch", "gpu", "threads", "world")}
    sections["environment"] = {"densecl": record.densecl, **versions}
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
        table.add_row(
            str(step.step),
            Text(ranges(step.new_classes)),
            f"{step.iterations}",
            humanise(step.seconds) + ("*" if step.shared else ""),
            *(_percent(miou.get(key)) for key in ("all", "previous", "current")),
            _percent(metrics.get("forgetting")),
        )
    return Block("steps (mIoU and forgetting in %)", table, _star(record))


def _classes(record: Record, width: int) -> list[Block]:
    """IoU of each class by step, in as many tables as the width asks for."""
    steps = [step for step in record.steps if step.evaluations]
    label = max((len(name) for name in record.class_names), default=0)
    number = len(str(len(record.class_names)))
    room = max(1, (width - number - 2 - label - 2) // 7)
    blocks = []
    for first in range(0, len(steps), room):
        shown = steps[first : first + room]
        title = "IoU of each class after each step (%)" if first == 0 else ""
        table = _table("", "class", *(str(step.step) for step in shown), left=2)
        for k, name in enumerate(record.class_names):
            found = [step.evaluations[0].metrics.get("iou", []) for step in shown]
            cells = [_percent(values[k]) if k < len(values) else "-" for values in found]
            table.add_row(str(k), Text(name), *cells)
        blocks.append(Block(title, table))
    return blocks


def _confusions(record: Record) -> list[Block]:
    """What is taken for what after the last step; of a sequence, in each task of segmentation."""
    if not record.steps:
        return []
    blocks = []
    last = record.steps[-1]
    for number, evaluation in enumerate(last.evaluations):
        names = record.tasks[number].class_names if record.tasks else record.class_names
        if evaluation.confusion is None or not names:
            continue
        learnt = range(1 if names[0] == "other" else 0, len(names)) if record.tasks else _learnt(record)
        pairs = confusions(evaluation.confusion, learnt)
        if not pairs:
            continue
        of = f" of {evaluation.task}" if record.tasks else ""
        table = _table("true", "predicted", "share", "pixels", left=2)
        for pair in pairs:
            row = (Text(names[pair.true]), Text(names[pair.predicted]), f"{100 * pair.share:.1f} %", f"{pair.pixels:,}")
            table.add_row(*row)
        blocks.append(Block(f"taken for another class{of}, after step {last.step}", table))
    return blocks


def _sequence(record: Record) -> list[Block]:
    """What each step took and what is stored after it, then the scores by task and step."""
    steps = _table("step", "task", "iterations", "time", "size", "file", left=2)
    for step in record.steps:
        size, file = ("-", "-") if step.model is None else (_bytes(step.model.formula), _bytes(step.model.file))
        time = humanise(step.seconds) + ("*" if step.shared else "")
        steps.add_row(str(step.step), Text(step.task), f"{step.iterations}", time, size, file)
    headings = [f"after {step.step}" for step in record.steps]
    scores = _table("task", "metric", *headings, left=2)
    for number, task in enumerate(record.tasks):
        found = [step.evaluations[number : number + 1] for step in record.steps]
        cells = [_score(task.primary, one[0].metrics) if one else "" for one in found]
        arrow = "higher" if task.higher_is_better else "lower"
        scores.add_row(
            Text(task.name), Text(f"{METRIC_NAMES.get(task.primary, task.primary)}, {arrow} is better"), *cells
        )
    title = "score of each task after each step (mIoU in %)"
    return [Block("steps", steps, _star(record)), Block(title, scores)]


def _files(folder: Path) -> Block:
    parts = files_of(folder)
    table = _table("name", "files" if any(part.count > 1 for part in parts) else "", "size")
    for part in parts:
        table.add_row(Text(part.name), str(part.count) if part.count > 1 else "", _bytes(part.size))
    table.add_row("in all", "", _bytes(sum(part.size for part in parts)))
    return Block(f"files in {folder}", table)


# ---- words


def _learnt(record: Record) -> list[int]:
    """Labels that the run can tell apart: background, where there is one, and the classes of finished steps."""
    classes = sorted({label for step in record.steps for label in step.new_classes} - {0})
    return [*([0] if record.has_background else []), *classes]


def _star(record: Record) -> str:
    return "* loaded: another run with the same first step trained it" if any(s.shared for s in record.steps) else ""


def _score(primary: str, metrics: dict[str, Any]) -> str:
    value = metrics.get(primary)
    if isinstance(value, dict):
        return _percent(value.get("all"))
    return "-" if value is None else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{round(100 * share, 1) + 0.0:.1f}"  # + 0.0: no -0.0


def _value(value: Any) -> str:
    """As it is written after `--set`, on one line; long lists by their ends."""
    if isinstance(value, list | tuple) and len(value) > 12:
        return f"[{value[0]}, {value[1]}, ... {value[-1]}]"
    return str(value).replace("'", "")


def _bytes(count: int | None) -> str:
    """`312 B`, `4.0 KiB`, `12.3 MiB`."""
    if count is None:
        return "-"
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
