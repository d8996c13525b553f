"""Measurements as tables for a terminal or a text file."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from bench.rows import Goal, Row
from bench.suite import Report
from densecl.terminal import text_console

LEGEND = (
    "Of each pair ours is above, the reference below. Times and ratios are medians over the turns; below a ratio the "
    "least and the greatest. CPU: the ratio in time of the processor; memory: peak, ours over the reference's."
)
BUSY = 0.5  # load a core above which other programs disturb the measurement


def render(report: Report, *, width: int = 80, colour: bool = False, machine: bool = True, legend: bool = True) -> str:
    """The report as text that ends in a newline.

    Args:
        report: what was measured.
        width: of lines.
        colour: whether the terminal understands escape codes.
        machine: begin with what it was measured on.
        legend: end with what the columns mean.
    """
    console = text_console(width, colour)
    with console.capture() as capture:
        if machine:
            for line in machine_lines(report):
                console.print(Text(line))
            console.print()
        for kind, sense in dict.fromkeys((row.kind, row.sense) for row in report.rows):
            rows = [row for row in report.rows if (row.kind, row.sense) == (kind, sense)]
            better = "more" if sense.more else "less"
            console.print(Text(f"{kind}: {sense.value} ({better} is better)", style="bold"))
            numbers = {note: n for n, note in enumerate(dict.fromkeys(row.note for row in rows if row.note), 1)}
            console.print(_grid(rows, numbers))
            for note, number in numbers.items():
                console.print(Text(f"[{number}] {note}", style="dim"))
            console.print()
        for line in report.missing:
            console.print(Text(f"left out of {line.kind}: {line.line}", style="dim"))
        if legend:
            console.print(Text(LEGEND, style="dim"))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).rstrip() + "\n"


def machine_lines(report: Report) -> list[str]:
    """What was measured on, and what makes the figures doubtful."""
    e = report.environment
    device = f", {e['gpu']}" if e["gpu"] else ""
    threads = f"{e['threads']} thread{'s' if e['threads'] != 1 else ''} of {e['cores']} cores"
    lines = [f"densecl {e['densecl']}, torch {e['torch']}, {e['cpu']}{device}, {threads}"]
    if e["load"] is not None and e["load"] > BUSY * e["cores"]:
        lines.append(f"other programs were running (load {e['load']:.1f}): look at the range and at CPU")
    if report.small:
        lines.append("small sizes: they say nothing about the machine, and no goal is applied")
    return lines


def _grid(rows: Sequence[Row], numbers: dict[str, int]) -> Table:
    """Three lines a row: what is measured, our form, the reference; columns that no row fills are left out."""
    optional = {
        "CPU": [row.processor_ratio for row in rows],
        "memory": [row.memory_ratio for row in rows],
    }
    shown = {name: values for name, values in optional.items() if any(value is not None for value in values)}
    goals = any(row.goal for row in rows)
    grid = Table(box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 0))
    grid.add_column("", overflow="fold")
    for heading in ("time", "ratio", *shown):
        grid.add_column(heading, justify="right", no_wrap=True)
    if goals:
        grid.add_column("goal", no_wrap=True)
    for k, row in enumerate(rows):
        mark = f" [{numbers[row.note]}]" if row.note else ""
        more = [values[k] for values in shown.values()]
        ratios = ["" if value is None else number(value) for value in more]
        goal = goal_cells(row) if goals else [[], [], []]
        grid.add_row(Text(f"{row.what}{mark}", style="bold"), *[""] * (2 + len(more)), *goal[0])
        ours = Text(number(row.ratio), style="bold")
        grid.add_row(Text(f"  {row.ours}"), time_text(row.seconds), ours, *ratios, *goal[1])
        spread = f"{number(row.low)}-{number(row.high)}"
        reference = Text(f"  {row.reference}")
        grid.add_row(reference, time_text(row.reference_seconds), spread, *[""] * len(more), *goal[2])
    return grid


def goal_cells(row: Row) -> list[list[Text]]:
    """What is asked for and whether it is met, for the three lines of a row."""
    if row.goal is None:
        return [[Text("")]] * 3
    parts = goal_lines(row.goal, row.sense.more)
    verdict = Text("met" if row.met else "NOT MET", style="" if row.met else "bold")
    return [[Text(parts[0])], [Text(", ".join(parts[1:]))], [verdict]]


def goal_lines(goal: Goal, more: bool) -> list[str]:
    """The parts of a goal."""
    parts = []
    if goal.ratio is not None:
        parts.append(f"{'≥' if more else '≤'} {goal.ratio:g}")
    if goal.memory is not None:
        parts.append(f"mem ≤ {goal.memory:g}")
    if goal.seconds is not None:
        parts.append(f"≤ {time_text(goal.seconds)}")
    return parts


def number(value: float) -> str:
    """A ratio with three digits that count, and no more than two after the point where it is 1 or more."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def time_text(seconds: float) -> str:
    """Seconds with three digits that count, in the unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{seconds / size:.3g} {unit}" if seconds / size < 999.5 else f"{seconds / size:.0f} {unit}"
    raise AssertionError
