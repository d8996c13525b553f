"""What a sweep would do, before it does it: every run, what is left of it, and what that will cost."""

import copy
from collections import Counter
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from densecl.models.network import Network
from densecl.runner.cost import measure
from densecl.sweep.jobs import Job, network_of
from densecl.sweep.schedule import in_order, leaders, needs_first_step
from densecl.tables.forms.text import humanise

COLUMNS = ("", "strategy", "seed", "settings", "state", "first step", "iterations", "estimate", "folder")


def describe(jobs: Sequence[Job], threads: int, slots: int, how: str) -> str:
    """The runs of a sweep as text, in the order in which they start.

    Args:
        jobs: checked.
        threads: of each run.
        slots: how many run at a time.
        how: a phrase on the engine.
    """
    open_jobs = [job for job in jobs if job.state() != "finished"]
    ahead = {job.number: job for job in leaders(open_jobs)}
    trained = {job.first_step for job in ahead.values()}
    costs: dict[str, float] = {}
    networks: dict[str, Network] = {}
    lines, total, longest = [], 0.0, 0.0
    known = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for job in [*(job for job in jobs if job not in open_jobs), *in_order(open_jobs)]:
            state = job.state()
            shares = job.number not in ahead and job.first_step in trained and needs_first_step(job)
            loads = state != "finished" and job.first_step is not None and not needs_first_step(job)
            iterations = 0 if state == "finished" else _left(job, shares or loads)
            seconds = iterations * _cost(job, costs, networks) if iterations else 0.0
            total, longest = total + seconds, max(longest, seconds)
            first = "trains for others" if job.number in ahead else f"of run {_leader(job, ahead)}" if shares else ""
            lines.append((job, state, first, iterations, seconds))
    finally:
        torch.set_num_threads(known)
    counts = Counter(state for _, state, *_ in lines)
    text = [
        f"{runs(len(jobs))}: " + ", ".join(f"{counts[s]} {s}" for s in ("finished", "to resume", "to do")) + f"; {how}"
    ]
    for benchmark in dict.fromkeys(job.plan.settings.benchmark for job in jobs):
        text += ["", benchmark, _grid([line for line in lines if line[0].plan.settings.benchmark == benchmark])]
    shortest = max(total / slots, longest)
    text += [
        "",
        f"estimate   {humanise(total)} of computing, about {humanise(shortest)} with {slots} at a time "
        "(forward and backward",
        "           measured here, without loading, teacher and evaluation)",
    ]
    return "\n".join(text)


def runs(count: int) -> str:
    """So many runs, in words."""
    return f"{count} run{'s' * (count != 1)}"


def _left(job: Job, loads: bool) -> int:
    """Iterations that a run has yet to train; epochs of a step that was not finished are not counted as done."""
    record = job.record()
    done = len(record.steps) if record is not None and record.resumable else 0
    return sum(job.iterations[max(done, int(loads)) :])


def _leader(job: Job, ahead: dict[int, Job]) -> int:
    return next(number for number, other in ahead.items() if other.first_step == job.first_step)


def _cost(job: Job, costs: dict[str, float], networks: dict[str, Network]) -> float:
    """Seconds an iteration; measured once for runs whose network and batches are alike."""
    s = job.plan.settings
    training = s.training
    key = f"{s.backbone} {s.backbone_values} {training.crop} {training.batch} {training.precision} {s.data.name}"
    if key not in costs:
        network = copy.deepcopy(network_of(job.plan, networks))
        network.grow(sum(map(len, job.plan.steps)) + 1)
        costs[key] = measure(job.plan, network)
    return costs[key]


def _grid(lines: Sequence[tuple[Job, str, str, int, float]]) -> str:
    """The runs of one benchmark; columns that say nothing are left out."""
    cells = [
        (
            str(job.number),
            job.plan.method.name,
            str(job.plan.settings.seed),
            job.request.note,
            state,
            first,
            f"{iterations:,}" if iterations else "",
            humanise(seconds) if iterations else "",
            str(job.plan.folder),
        )
        for job, state, first, iterations, seconds in lines
    ]
    kept = [k for k in range(len(COLUMNS)) if any(row[k] for row in cells)]
    grid = Table(box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 0))
    for k in kept:
        grid.add_column(COLUMNS[k], justify="right" if COLUMNS[k] in ("", "seed", "iterations", "estimate") else "left")
    for row in cells:
        grid.add_row(*(row[k] for k in kept))
    console = Console(width=10_000, no_color=True, force_terminal=False, markup=False, emoji=False, highlight=False)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
