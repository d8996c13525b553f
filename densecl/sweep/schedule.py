"""Which run of a sweep may start: of runs that share a first step one trains it, and the others begin when it is there.

The lock in `densecl.runner.share` would make them wait as well, but each in a slot that another run could use.
"""

from collections.abc import Collection, Iterable, Sequence

from densecl.sweep.jobs import Job


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """The jobs as they are to start: those that train a first step for others come first."""
    ahead = {job.number for job in leaders(jobs)}
    return sorted(jobs, key=lambda job: (job.number not in ahead, job.number))


def leaders(jobs: Iterable[Job]) -> list[Job]:
    """One job of each first step that is not there and that several jobs need: the first, or one that has begun."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if job.first_step is not None and needs_first_step(job):
            groups.setdefault(job.first_step, []).append(job)
    begun = {job.number for group in groups.values() for job in group if job.state() == "to resume"}
    return [min(g, key=lambda job: (job.number not in begun, job.number)) for g in groups.values() if len(g) > 1]


def needs_first_step(job: Job) -> bool:
    """Whether a job has yet to train or load its first step, and it is not there to be loaded."""
    path = job.first_step_file
    if path is not None and path.is_file():
        return False
    record = job.record()
    return record is None or not record.steps


def may_start(job: Job, running: Collection[Job]) -> bool:
    """Whether no job that runs is about to train the first step that `job` needs."""
    sharers = [other for other in running if other.first_step is not None and other.first_step == job.first_step]
    return not sharers or not needs_first_step(job) or not any(needs_first_step(other) for other in sharers)
