"""A folder of runs -> tables: what `densecl table` prints and `densecl.table` returns."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from densecl.errors import RecordError, SettingError, UnknownNameError
from densecl.records.record import APART, FILE_NAME, Found, find_records
from densecl.tables.choose import choose_columns, chosen, sort_rows
from densecl.tables.collection import Tables
from densecl.tables.group import averaged_keys
from densecl.tables.provenance import refuse
from densecl.tables.table import rows

RUNS = "name a folder with runs, or start one with densecl run"


def table(
    folder: str | Path = "results",
    *,
    benchmark: Sequence[str] = (),
    filter: Sequence[str] = (),
    per_step: bool = False,
    per_class: bool = False,
    group: str | None = None,
    labels: str | None = None,
    layout: str | None = None,
    against: Sequence[Path] = (),
    over: Sequence[str] = (),
    mix: bool = False,
    catalogue: Path | None = None,
    sort: str | None = None,
    columns: Sequence[str] = (),
    complain: Callable[[str], None] | None = None,
) -> Tables:
    """Compare what was run: one table for each benchmark, one row per configuration.

    Runs are one row when they differ by seed alone; runs with other settings have rows of their own. Runs of equal
    settings that come from another version of densecl, another source of the method, other images, another minor
    version of torch or another kind of device are refused, unless `mix`; then a footnote says what was averaged.

    The tables can be printed; `densecl.tables.forms.text.render` has more forms.

    Args:
        folder: with runs, at any depth.
        benchmark: show these alone.
        filter: conditions that runs must meet, such as `setting=disjoint` or `training.lr<0.01`.
        per_step: mIoU of all classes seen, after each step.
        per_class: IoU of each class after the last step, by method.
        group: how classes are averaged: a name such as `fg-only`, or `file.py:Class` of one's own.
        labels: label preset by which classes not learnt yet are scored.
        layout: `paper` puts the benchmarks of a data set side by side, as papers on class-incremental streams do, and
            prints sequences of tasks as Matsumoto and Yanai do, with depth or normals as HAD does.
        against: TOML files of published numbers that are set beside ours.
        over: settings to average over as over seeds, such as `stream.order`.
        mix: average runs that are refused otherwise.
        catalogue: a folder of one's own whose recipes name methods in the paper's layout.
        sort: a heading, with `:asc` or `:desc`.
        columns: the headings to show, in order.
        complain: told of each record that cannot be read; None warns.
    """
    if layout not in (None, "paper"):
        raise SettingError(f"unknown layout '{layout}'", "known: paper; field is one of the command `densecl table`")
    if against and per_step:
        raise SettingError("--against compares after the last step", "leave out --per-step")
    others = {"per-step": per_step, "group": group, "layout": layout, "against": against}
    if per_class and (other := next((name for name, given in others.items() if given), "")):
        raise SettingError(f"--per-class shows single classes, and --{other} means of them", "leave out one of them")
    tell = complain or warnings.warn
    files = read_runs(Path(folder), lambda fault: tell(f"left out: {fault}"), benchmark)
    folders = {id(record): str(path.parent) for path, record in files}
    records = chosen([record for _, record in files], filter)
    if layout == "paper" and per_step:
        raise SettingError("--layout paper is for scores after the last step", "leave out --per-step")
    if not mix:
        refuse(records, lambda record: folders[id(record)], averaged_keys(records, over))
    tables = rows(
        records, per_step, group=group, labels=labels, paper=layout == "paper", per_class=per_class, over=over
    )
    if sort is not None:
        tables = sort_rows(tables, sort)
    if against:  # below rows that are in order, and in columns that are all there
        from densecl.records.published import read_all
        from densecl.tables.against import against as beside

        tables = beside(tables, read_all(against), group)
    if layout == "paper":
        from densecl.tables.paper import side_by_side

        classes = [table for table in tables if table.layout and not table.is_sequence]
        tables = [*side_by_side(classes, catalogue), *(table for table in tables if table not in classes)]
    return Tables(choose_columns(tables, columns) if columns else tables)


def read_runs(
    folder: Path, complain: Callable[[str], None], benchmark: Sequence[str] = (), *, apart: bool = False
) -> list[Found]:
    """The records in and below `folder`, of some benchmarks or all; `complain` is told of each that cannot be read.

    `apart`: also those of folders directly in it that are kept apart, such as the records of a clone.

    Raises:
        RecordError: there is no such folder, or no record in it that can be read.
        UnknownNameError: nothing of a benchmark was run.
    """
    if not folder.exists():
        raise RecordError(f"the folder {folder} does not exist", RUNS)
    files, faults = find_records(folder)
    for mark in sorted(folder.glob(f"*/{APART}")) if apart else ():
        more, more_faults = find_records(mark.parent)
        files, faults = files + more, faults + more_faults
    for fault in faults:
        complain(str(fault))
    if not files:
        what = f"none of its records can be read ({faults[0]})" if faults else f"it holds no {FILE_NAME}"
        others = ", ".join(sorted(str(mark.parent) for mark in folder.rglob(APART)))
        raise RecordError(f"nothing to show in {folder}: {what}", RUNS + (f", or name {others}" if others else ""))
    known = sorted({run.record.benchmark for run in files})
    for name in benchmark:
        if name not in known:
            raise UnknownNameError("benchmark", name, known, f"nothing of it was run in {folder}")
    return [run for run in files if not benchmark or run.record.benchmark in benchmark]
