"""The runs of a sweep, resolved and checked: nothing starts before all of them are known to be possible."""

import contextlib
import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from densecl.errors import DenseCLError, RecipeError, RecordError
from densecl.files import expanded
from densecl.models.network import Network
from densecl.records.record import FILE_NAME, Record, read_record
from densecl.runner.build import build_loop, build_network, build_scenario
from densecl.runner.cost import computing_with, without_download
from densecl.runner.plan import Plan, make_plan
from densecl.runner.share import first_step_key, may_share
from densecl.sweep.planfile import OPTIONS, Request

State = Literal["finished", "to resume", "to do"]  # of a run's folder
Scan = Callable[[int, int], None]


class Where(NamedTuple):
    """Options of `densecl run` that all runs of a sweep share; None: its default."""

    output: Path = Path("results")
    data: Path | None = None
    device: str | None = None
    workers: int | None = None
    catalogue: Path | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a sweep."""

    number: int  # its place in the sweep's plan, from 1
    request: Request
    plan: Plan
    words: tuple[str, ...]  # of the command line that runs it
    first_step: str | None = None  # key of the first step that it shares with others
    iterations: tuple[int, ...] = ()  # of each step

    def __str__(self) -> str:
        return str(self.request)

    @property
    def name(self) -> str:
        """For files of its own."""
        folder = self.plan.folder.relative_to(self.plan.output)
        return "-".join((folder.parts[0], folder.parts[1], folder.name))

    @property
    def first_step_file(self) -> Path | None:
        """Where the shared first step lies once it is trained."""
        return None if self.first_step is None else self.plan.output / ".shared" / f"{self.first_step}.safetensors"

    def needs_first_step(self) -> bool:
        """True if a first step that it may share is yet to be trained or loaded, and is not there to be loaded."""
        path = self.first_step_file
        if path is None or path.is_file():
            return False
        record = self.record()
        return record is None or not record.steps

    def record(self) -> Record | None:
        """The record on disk; None where there is none that can be read."""
        with contextlib.suppress(RecordError):
            return read_record(self.plan.folder / FILE_NAME)
        return None

    def state(self) -> State:
        """Where the run stands."""
        record = self.record()
        if record is None or record.status == "finished":
            return "to do" if record is None else "finished"
        begun = record.steps or next((self.plan.folder / "checkpoints").glob("*.ckpt"), None)
        return "to resume" if begun and record.resumable else "to do"


def make_jobs(requests: Sequence[Request], where: Where, source: str, *, remote: bool = False) -> list[Job]:
    """Every run resolved, in the plan's order, each to its own folder; `remote` ones need no device here."""
    jobs: list[Job] = []
    first: dict[Path, Job] = {}
    for number, request in enumerate(requests, 1):
        options = {key: getattr(request, key) for key in ("backbone", "seed", *OPTIONS)} | where._asdict()
        with _named(f"{source}: run {number} ({request})"):
            device = "cpu" if remote else where.device
            arguments = {**options, "assignments": request.assignments, "device": device}
            plan = make_plan(request.benchmark, request.strategy, **arguments)
        words = ["run", "--benchmark", request.benchmark, "--strategy", request.strategy]
        for name, value in options.items():
            if value is not None:  # paths that hold in any folder
                words += [f"--{name}", str(expanded(value).absolute() if isinstance(value, Path) else value)]
        words += [word for assignment in request.assignments for word in ("--set", assignment)]
        jobs.append(job := Job(number, request, plan, tuple(words)))
        other = first.setdefault(plan.folder, job)
        if other is not job:
            raise RecipeError(
                f"{source}: run {other.number} ({other}) and run {number} ({job}) are one run, {plan.folder}",
                "leave one of them out",
            )
    return jobs


def check(
    jobs: Sequence[Job], source: str, threads: int, scan: Scan | None = None, *, remote: bool = False
) -> list[Job]:
    """The jobs with their first steps and lengths; all that a run makes before it trains is made here as well.

    The threads that each run will have are part of a first step's key; `scan` hears (done, total) of masks.
    """
    networks: dict[str, Network] = {}
    with computing_with(threads):
        return [_checked(job, source, networks, remote, scan) for job in jobs]


def _checked(job: Job, source: str, networks: dict[str, Network], remote: bool, scan: Scan | None) -> Job:
    plan = job.plan
    with _named(f"{source}: run {job.number} ({job})"):
        scenario, _ = build_scenario(plan, scan)
        loop = build_loop(_anywhere(plan) if remote else plan, scenario, network_of(plan, networks))
        iterations = tuple(loop.length(experience)[1] for experience in scenario.experiences)
        key = first_step_key(plan, scenario) if may_share(plan) else None
    return replace(job, first_step=key, iterations=iterations)


def network_of(plan: Plan, networks: dict[str, Network]) -> Network:
    """The network of a run without its pretrained weights: a copy of the backbone's, since methods change layers."""
    key = f"{plan.settings.backbone} {plan.settings.backbone_values}"
    if key not in networks:
        networks[key] = build_network(without_download(plan.settings), plan.backbone)
    return copy.deepcopy(networks[key])


def _anywhere(plan: Plan) -> Plan:
    """The plan in a precision that every device has: fp16 needs the GPU that another machine has."""
    s = plan.settings
    training = s.training.model_copy(update={"precision": "fp32"})
    return replace(plan, settings=s.model_copy(update={"training": training}))


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Name the plan and the run in front of what is wrong with it."""
    try:
        yield
    except DenseCLError as error:
        raise RecipeError(f"{what}: {error}") from error


# ---- the order of runs: of those that share a first step one trains it, and the others begin when it is there. Its
# lock would make them wait as well, but each in a slot that another run could use


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
