"""The order of runs: of those that share a first step one trains it, and the others begin when it is there.

The lock in `densecl.runner.share` would make them wait as well, but each in a slot that another run could use.
"""

from collections.abc import Collection, Iterable, Sequence

from densecl.sweep.jobs import Job


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """The jobs as they are to start: those that train a first step for others come first."""
    ahead = leaders(jobs)
    return sorted(jobs, key=lambda job: (job not in ahead, job.number))


def leaders(jobs: Iterable[Job]) -> list[Job]:
    """One job of each first step that is not there and that several jobs need: the first, or one that has begun."""
    groups: dict[str | None, list[Job]] = {}
    for job in jobs:
        if job.needs_first_step():
            groups.setdefault(job.first_step, []).append(job)
    shared = [group for group in groups.values() if len(group) > 1]
    return [min(group, key=lambda job: (job.state() != "to resume", job.number)) for group in shared]


def may_start(job: Job, running: Collection[Job]) -> bool:
    """True if no job that runs is about to train the first step that `job` needs."""
    sharers = [other for other in running if other.first_step == job.first_step]
    return not (sharers and job.needs_first_step() and any(other.needs_first_step() for other in sharers))
