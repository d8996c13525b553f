"""What the page says of a sequence of tasks: every task after every later one, sizes, pictures."""

from typing import NamedTuple

from densecl.report import figures
from densecl.report.album import Album, Fault, Picture, read_picture
from densecl.report.figures import Axes, Point
from densecl.report.gather import Benchmark, Member
from densecl.report.sections import Plot, among, scaled
from densecl.report.tables import Datum, half, in_view, shown
from densecl.tables.measure import METRIC_NAMES


class Matrix(NamedTuple):
    """Scores of one row of a sequence: `cells[i][j]` is that of task i after task j, empty before it was learnt."""

    member: Member
    tasks: tuple[str, ...]  # with their metric
    cells: tuple[tuple[Datum, ...], ...]


def matrices(benchmark: Benchmark) -> list[Matrix]:
    """The scores of every task after every later one."""
    table, found = in_view(benchmark, per_step=True)
    result = []
    for member, row in zip(benchmark.members, found, strict=True):
        tasks = max((record.tasks for record in member.records), key=len)
        by_heading = {column.heading: cell for column, cell in zip(table.columns, row.cells, strict=True)}
        kinds = {column.heading: column.kind for column in table.columns}
        lines = []
        for task in tasks:
            line = []
            for after in range(1, len(tasks) + 1):
                heading = f"{task.name} after {after}"
                cell = by_heading.get(heading)
                if cell is None or cell.mean is None:
                    line.append(Datum(""))
                    continue
                text, spread = shown(cell, kinds[heading] == "share")
                line.append(Datum(text, cell.mean, spread))
            lines.append(tuple(line))
        result.append(
            Matrix(member, tuple(f"{t.name} ({METRIC_NAMES.get(t.primary, t.primary)})" for t in tasks), tuple(lines))
        )
    return result


def sizes(benchmark: Benchmark) -> list[Plot]:
    """Of a sequence: each task's last score against the size of the file that performs all of them."""
    headings = [column.heading for column in benchmark.table.columns]
    if "file" not in headings:
        return []
    plots = []
    for number, column in enumerate(benchmark.table.columns):
        task = next((t for t in benchmark.records[0].tasks if column.heading.startswith(f"{t.name} ")), None)
        if task is None or not column.better or "forgetting" in column.heading or "SSIM" in column.heading:
            continue
        factor = 100 if column.kind == "share" else 1
        points = []
        for member in benchmark.members:
            cell, file = member.row.cells[number], member.row.cells[headings.index("file")]
            if cell.mean is not None and file.mean is not None and not member.row.progress:
                points.append(Point(member.style, file.mean, factor * cell.mean, scaled(half(cell), factor)))
        if points:
            unit = ", %" if factor == 100 else ""
            title = f"{benchmark.name}: last {column.heading} against the size of all that performs the tasks"
            axes = Axes("file, MiB", f"{column.heading}{unit}")
            svg = figures.scatter(f"{benchmark.slug}-size{number}", title, axes, points)
            plots.append(Plot(svg, f"{column.heading}, {column.better} is better.", among(benchmark, points)))
    return plots


class Panel(NamedTuple):
    """What a run of a sequence made of a task's first test images: rows of input, output and truth."""

    label: str
    picture: Picture
    alt: str


def panels(member: Member, album: Album, fault: Fault) -> list[Panel]:
    """Of a sequence: each task right after it was learnt and after the last one, of the first run with pictures."""
    for found in member.runs:
        record, folder = found.record, found.path.parent / "pictures"
        last = len(record.steps) - 1
        result: list[Panel] = []
        for own, step in enumerate(record.steps):
            for k in dict.fromkeys((own, last)):
                image = read_picture(folder / f"step{k}-{step.task}.png", fault)
                picture = None if image is None else album.add(image.convert("RGB"))
                if picture is not None:
                    when = "when learnt" if k == own else f"after task {k + 1}"
                    alt = f"{member.label}, task {step.task} {when}: test images in rows of input, output and truth"
                    result.append(Panel(f"{step.task} {when}", picture, alt))
        if result:
            return result
    return []
