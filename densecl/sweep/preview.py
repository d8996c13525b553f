"""The preview of a sweep: every run, what is left of it, and what that will cost."""

from collections import Counter
from collections.abc import Sequence

from rich.table import Table

from densecl.models.network import Network
from densecl.runner.cost import computing_with, measure
from densecl.sweep.jobs import Job, in_order, leaders, network_of
from densecl.terminal import humanise, text_console

COLUMNS = ("", "strategy", "seed", "settings", "state", "first step", "iterations", "estimate", "folder")
NUMBERS = ("", "seed", "iterations", "estimate")  # columns that are set flush right


def describe(jobs: Sequence[Job], threads: int, slots: int, how: str) -> str:
    """The runs of a sweep as text, in the order in which they start; `how` is a phrase on the engine."""
    states = {job: job.state() for job in jobs}
    open_jobs = [job for job in jobs if states[job] != "finished"]
    trainer = {job.first_step: job for job in leaders(open_jobs)}
    written = {job.plan.method.name: set[str]() for job in jobs}
    for job in jobs:
        written[job.plan.method.name].add(job.request.strategy)
    costs: dict[str, float] = {}
    networks: dict[str, Network] = {}
    rows: dict[str, list[list[str]]] = {job.plan.settings.benchmark: [] for job in jobs}
    seconds = []
    with computing_with(threads):
        for job in [*(job for job in jobs if job not in open_jobs), *in_order(open_jobs)]:
            leader, needed = trainer.get(job.first_step), job.needs_first_step()
            trains, waits = leader is job, leader not in (None, job) and needed
            loads = waits or (job.first_step is not None and not needed)
            iterations = 0 if states[job] == "finished" else _left(job, loads)
            seconds.append(iterations * _cost(job, costs, networks) if iterations else 0.0)
            rows[job.plan.settings.benchmark].append(
                [
                    str(job.number),
                    # a method that stands in several ways: with its options
                    name if len(written[name := job.plan.method.name]) == 1 else job.request.strategy,
                    str(job.plan.settings.seed),
                    job.request.note,
                    states[job],
                    "trains for others" if trains else f"of run {leader.number}" if leader and waits else "",
                    f"{iterations:,}" if iterations else "",
                    humanise(seconds[-1]) if iterations else "",
                    str(job.plan.folder),
                ]
            )
    counts = Counter(states.values())
    counted = ", ".join(f"{counts[state]} {state}" for state in ("finished", "to resume", "to do"))
    shortest = max(sum(seconds) / slots, *seconds)
    return "\n".join(
        [
            f"{runs(len(jobs))}: {counted}; {how}",
            *(line for benchmark in rows for line in ("", benchmark, _grid(rows[benchmark]))),
            "",
            f"estimate   {humanise(sum(seconds))} of computing, about {humanise(shortest)} with {slots} at a time "
            "(forward and backward",
            "           measured here, without loading, teacher and evaluation)",
        ]
    )


def runs(count: int) -> str:
    """So many runs, in words."""
    return f"{count} run{'s' * (count != 1)}"


def _left(job: Job, loads: bool) -> int:
    """Iterations that a run has yet to train; epochs of a step that was not finished are not counted as done."""
    record = job.record()
    done = len(record.steps) if record is not None and record.resumable else 0
    return sum(job.iterations[max(done, int(loads)) :])


def _cost(job: Job, costs: dict[str, float], networks: dict[str, Network]) -> float:
    """Seconds an iteration; measured once for runs whose network and batches are alike."""
    s = job.plan.settings
    training = s.training
    key = f"{s.backbone} {s.backbone_values} {training.crop} {training.batch} {training.precision} {s.data.name}"
    key += f" {training.loss_stride} {training.freezes(0)} {training.cache_features}"
    if key not in costs:
        network = network_of(job.plan, networks)
        network.grow(sum(map(len, job.plan.steps)) + 1)
        costs[key] = measure(job.plan, network)
    return costs[key]


def _grid(rows: Sequence[Sequence[str]]) -> str:
    """The runs of one benchmark; columns that say nothing are left out."""
    used = [k for k in range(len(COLUMNS)) if any(row[k] for row in rows)]
    grid = Table(box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 0))
    for k in used:
        grid.add_column(COLUMNS[k], justify="right" if COLUMNS[k] in NUMBERS else "left")
    for row in rows:
        grid.add_row(*(row[k] for k in used))
    console = text_console(10_000, colour=False)
    with console.capture() as capture:
        console.print(grid, markup=False)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
