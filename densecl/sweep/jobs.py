"""The runs of a plan, resolved and checked: nothing starts before all of them are known to be possible."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from densecl.errors import DenseCLError, RecipeError, RecordError
from densecl.models.network import Network
from densecl.records.record import FILE_NAME, Record, read_record
from densecl.runner.build import build_loop, build_network, build_scenario
from densecl.runner.cost import without_download
from densecl.runner.plan import Plan, make_plan
from densecl.runner.share import first_step_key, may_share
from densecl.sweep.planfile import Request

State = Literal["finished", "to resume", "to do"]


class Where(NamedTuple):
    """What all runs of a sweep have in common beside their plan; None: as `densecl run` has it."""

    output: Path = Path("results")
    data: Path | None = None
    device: str | None = None
    workers: int | None = None
    catalogue: Path | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a sweep.

    Attributes:
        number: its place in the plan, from 1. request: what the plan asks for. plan: the same, resolved.
        words: of the command line that runs it.
        first_step: key of the first step that it shares with others; None where it shares none.
        iterations: of each step.
    """

    number: int
    request: Request
    plan: Plan
    words: tuple[str, ...]
    first_step: str | None = None
    iterations: tuple[int, ...] = ()

    def __str__(self) -> str:
        return str(self.request)

    @property
    def name(self) -> str:
        """For files of its own."""
        folder = self.plan.folder.relative_to(self.plan.output)
        return "-".join((folder.parts[0], folder.parts[1], folder.name))

    @property
    def steps(self) -> int:
        """How many steps it trains."""
        return 1 if self.plan.method.strategy.cls.joint else len(self.plan.steps)  # type: ignore[attr-defined]

    @property
    def first_step_file(self) -> Path | None:
        """Where the shared first step lies once it is trained."""
        return None if self.first_step is None else self.plan.output / ".shared" / f"{self.first_step}.safetensors"

    def record(self) -> Record | None:
        """The record as it is on disk now; None where there is none that can be read."""
        with contextlib.suppress(RecordError):
            return read_record(self.plan.folder / FILE_NAME)
        return None

    def state(self) -> State:
        """What is left to do, as the folder has it."""
        record = self.record()
        if record is None or record.status == "finished":
            return "to do" if record is None else "finished"
        begun = record.steps or next((self.plan.folder / "checkpoints").glob("*.ckpt"), None)
        return "to resume" if begun and record.resumable else "to do"


def make_jobs(requests: Sequence[Request], where: Where, source: str, *, remote: bool = False) -> list[Job]:
    """Every run resolved, in the plan's order.

    Args:
        requests: of `densecl.sweep.planfile.expand`.
        where: what they have in common.
        source: the plan's name, for messages.
        remote: they run on other machines, so the device need not be one of this machine.

    Raises:
        RecipeError: a run that cannot be resolved, or two that resolve to one folder; names plan and runs.
        DataError: the data is missing.
    """
    jobs = []
    for number, request in enumerate(requests, 1):
        with _said_of(f"{source}: run {number} ({request})"):
            plan = make_plan(
                request.benchmark,
                request.strategy,
                backbone=request.backbone,
                seed=request.seed,
                assignments=request.assignments,
                data=where.data,
                output=where.output,
                weights=request.weights,
                device="cpu" if remote else where.device,
                precision=request.precision,
                validation=request.validation,
                workers=where.workers,
                catalogue=where.catalogue,
            )
        jobs.append(Job(number, request, plan, tuple(_words(request, where))))
    _refuse_collisions(jobs, source)
    return jobs


def check(
    jobs: Sequence[Job],
    source: str,
    threads: int,
    scan: Callable[[int, int], None] | None = None,
    *,
    remote: bool = False,
) -> list[Job]:
    """The jobs with their first steps and lengths; all that a run makes before it trains is made here as well.

    Args:
        jobs: of `make_jobs`.
        source: the plan's name, for messages.
        threads: that each run will have; part of the key of a first step.
        scan: hears (done, total) while masks are scanned for the first time.
        remote: they run on other machines.

    Raises:
        RecipeError: a run that would be refused; names plan and run.
    """
    networks: dict[str, Network] = {}
    known = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [_checked(job, source, networks, remote, scan) for job in jobs]
    finally:
        torch.set_num_threads(known)


def _checked(
    job: Job, source: str, networks: dict[str, Network], remote: bool, scan: Callable[[int, int], None] | None
) -> Job:
    plan = job.plan
    with _said_of(f"{source}: run {job.number} ({job})"):
        scenario, _ = build_scenario(plan, scan)
        loop = build_loop(_anywhere(plan) if remote else plan, scenario, network_of(plan, networks))
        iterations = tuple(loop.length(experience)[1] for experience in scenario.experiences)
        key = first_step_key(plan, scenario) if may_share(plan) else None
    return replace(job, first_step=key, iterations=iterations)


def network_of(plan: Plan, networks: dict[str, Network]) -> Network:
    """The network of a run without its pretrained weights; runs of one backbone share it."""
    key = f"{plan.settings.backbone} {plan.settings.backbone_values}"
    if key not in networks:
        networks[key] = build_network(without_download(plan.settings), plan.backbone)
    return networks[key]


def _anywhere(plan: Plan) -> Plan:
    """The plan in a precision that every device has: fp16 needs the GPU that another machine has."""
    s = plan.settings
    training = s.training.model_copy(update={"precision": "fp32"})
    return replace(plan, settings=s.model_copy(update={"training": training}))


def _words(request: Request, where: Where) -> Iterator[str]:
    """Of `densecl run`, with paths that hold in any folder."""
    yield from ("run", "--benchmark", request.benchmark, "--strategy", request.strategy, "--seed", str(request.seed))
    options = {
        "--backbone": request.backbone,
        "--weights": request.weights,
        "--validation": request.validation,
        "--precision": request.precision,
        "--data": where.data and where.data.absolute(),
        "--output": where.output.absolute(),
        "--device": where.device,
        "--workers": where.workers,
        "--catalogue": where.catalogue and where.catalogue.absolute(),
    }
    for option, value in options.items():
        if value is not None:
            yield from (option, str(value))
    for assignment in request.assignments:
        yield from ("--set", assignment)


def _refuse_collisions(jobs: Sequence[Job], source: str) -> None:
    first: dict[Path, Job] = {}
    for job in jobs:
        other = first.setdefault(job.plan.folder, job)
        if other is not job:
            raise RecipeError(
                f"{source}: run {other.number} ({other}) and run {job.number} ({job}) are one run, {job.plan.folder}",
                "leave one of them out",
            )


@contextlib.contextmanager
def _said_of(what: str) -> Iterator[None]:
    """Name the plan and the run in whatever is wrong with it."""
    try:
        yield
    except DenseCLError as error:
        raise RecipeError(f"{what}: {error}") from error
