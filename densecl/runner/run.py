"""A run: every step trained, evaluated, recorded and kept."""

import contextlib
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import torch

from densecl.errors import DataError, DenseCLError, RecordError, RunError
from densecl.files import locked
from densecl.listeners import lengths, listeners
from densecl.listeners.events import Listeners, Start
from densecl.records.record import APART, FILE_NAME, Record, StepRecord, plain, read_record
from densecl.runner import pictures, proof
from densecl.runner.build import build_loop, build_network, build_scenario, restored
from densecl.runner.checkpoint import Checkpoints, find_point, go_on, save_weights
from densecl.runner.environment import check_space, new_record, peak_memory
from densecl.runner.evaluation import evaluate
from densecl.runner.objects import BackboneLike, PluginLike, StrategyLike
from densecl.runner.plan import Plan, make_plan
from densecl.runner.rehearsal import check_images, rehearse
from densecl.runner.share import FirstStep, check_given, may_share, source_hash, take, train_or_load
from densecl.runner.signals import terminable
from densecl.streams.scenario import Experience, Scenario
from densecl.training import distributed
from densecl.training.distributed import from_main, is_main
from densecl.training.failures import explained, worded
from densecl.training.loop import Loop
from densecl.training.precision import keep_freed_memory

PARTS = ("weights", "checkpoints", "masks", pictures.FOLDER)  # folders of what a run has trained


def run(
    benchmark: str | Scenario,
    strategy: StrategyLike,
    *,
    plugins: Sequence[PluginLike] = (),
    backbone: BackboneLike | None = None,
    seed: int = 0,
    assignments: Iterable[str] = (),
    data: Path | str | None = None,
    output: Path | str = "results",
    weights: str | None = None,
    first: Path | str | None = None,
    first_map: Path | str | None = None,
    device: str | None = None,
    precision: Literal["fp32", "bf16", "fp16"] | None = None,
    validation: float | None = None,
    workers: int | None = None,
    catalogue: Path | str | None = None,
    fresh: bool = False,
    share: bool = True,
    keep_checkpoints: bool = False,
    quiet: bool = True,
    verbose: bool = False,
    tensorboard: bool = False,
    wandb: bool = False,
) -> Record:
    """Train every step of a benchmark with a strategy, evaluate after each, and record it.

    Args:
        benchmark: such as `voc15-5s` or `voc15-5s(setting=disjoint)`, or a scenario.
        strategy: such as `mib`, `mib+replay(memory=100)` or `mine.py:Mine`; a class, or an instance, of which the
            hyper-parameters count: a run makes its own.
        plugins: more of them, likewise.
        backbone: such as `unet(width=8)`; a class, or a module, of which a copy is trained.
        seed: of the run.
        assignments: settings, such as `training.epochs=2`.
        data: folder of the data sets.
        output: folder of all results.
        weights: of the encoder: `timm`, a file or `none`.
        first: a trained network as the first step; `first_map` says its names and classes.
        first_map: see `first`.
        device: `cpu`, `cuda`, ...; by default a GPU if there is one.
        precision: of training.
        validation: share of the training images that is held out and scored in place of the test images.
        workers: processes that load data.
        catalogue: a folder of one's own with `benchmarks/` and `strategies/`.
        fresh: start over although a finished record is there.
        share: load step 0 from an earlier run where it is the same to the bit, and keep it for later ones.
        keep_checkpoints: of every epoch, not only of the step in training.
        quiet: print nothing.
        verbose: print a line for each epoch.
        tensorboard: write event files to `tensorboard/` in the run's folder.
        wandb: send losses and scores to Weights & Biases.

    Returns the record, as written to `result.json` in the run's folder.

    Raises:
        DenseCLError: bad input, named; a loss that is not finite; a full disk; a run folder in use.
    """
    distributed.join()
    events = listeners(quiet=quiet, verbose=verbose, tensorboard=tensorboard, wandb=wandb)
    paths = {"data": data, "catalogue": catalogue, "first": first, "first_map": first_map}
    plan = make_plan(
        benchmark,
        strategy,
        plugins=plugins,
        backbone=backbone,
        seed=seed,
        assignments=assignments,
        output=Path(output),
        weights=weights,
        device=device,
        precision=precision,
        validation=validation,
        workers=workers,
        **{name: None if path is None else Path(path) for name, path in paths.items()},
    )
    return execute(plan, fresh=fresh, share=share, keep_checkpoints=keep_checkpoints, events=events)


def execute(
    plan: Plan, *, fresh: bool = False, share: bool = True, keep_checkpoints: bool = False, events: Listeners
) -> Record:
    """Carry out a plan, or go on with it where it was killed; the options are those of `run`.

    Of several processes (`densecl.training.distributed`) the main one reads and writes the run's folder, all train.
    """
    with distributed.first_on_each_host():
        plan.scan(events.scan("scanning masks"))
    share, folder, result = share and may_share(plan), plan.folder, plan.folder / FILE_NAME
    _check_alike(plan)
    check_given(plan)
    if not fresh and (done := from_main(lambda: _finished(result, events))):
        return done
    # all that bad input can break comes before the folder is made
    with distributed.first_on_each_host():
        scenario, workers = build_scenario(plan, events.scan("scanning masks"))
        check_images(scenario, events.scan)
    if plan.settings.device == "cpu":
        keep_freed_memory()
    network = build_network(plan.settings, plan.backbone)
    if fresh or not from_main(result.is_file):
        rehearse(plan, scenario, network)
    with worded(plan.settings, making=True):
        loop = build_loop(plan, scenario, network, workers, events)
    steps = len(scenario.experiences)
    check_space(folder, network, steps)
    busy = f"the run folder {folder} is in use by another process. wait for it, or use another --output"
    with locked(folder / ".lock", busy) if is_main() else contextlib.nullcontext():
        # another run may have finished it while the masks were scanned
        if not fresh and (done := from_main(lambda: _finished(result, events))):
            return done
        record = new_record(plan, scenario, workers)
        checkpoints = Checkpoints(folder, plan.hash, keep_checkpoints, writes=is_main())
        stream = loop.stream
        tasks, classes = ", ".join(task.name for task in stream.tasks), len(stream.class_names) - 1
        content = f"tasks {tasks}" if stream.kind == "tasks" else f"{classes} classes"
        events.line(f"{folder}: {steps} step{'s' * (steps > 1)}, {content}")
        work = Work(plan, loop, checkpoints, workers, events)
        loop.kept = lambda step: restored(plan, stream, folder, step, plan.hash).network
        try:
            with events, terminable(signal.SIGINT, signal.SIGTERM):
                record, spent = (record, 0.0) if fresh else work.go_on(result, record)
                resumed = bool(record.steps) or spent > 0
                events.run_started(Start(plan.folder, record, lengths(loop), resumed))
                if not resumed and is_main():
                    if work.torn:
                        events.line(f"what the run had trained is kept in {_set_aside(folder)}")
                    for name in PARTS:
                        shutil.rmtree(folder / name, ignore_errors=True)
                complete = len(record.steps) == steps
                record = record.model_copy(update={"status": "finished" if complete else "running"})
                _write(record, result)
                for experience in scenario.experiences[len(record.steps) :]:
                    record = work.step(experience, record, share=share, spent=spent)
                    _write(record, result)
                    checkpoints.prune(experience.step)
                    spent = 0.0
        except BaseException as error:
            shown = explained(error, plan.settings) if isinstance(error, Exception) else error
            with contextlib.suppress(DenseCLError):
                checkpoints.close()
            if isinstance(shown, DataError) and not record.steps and not checkpoints.any() and is_main():
                _remove(folder, plan.output)  # an unreadable image: nothing was learnt
            elif record.status != "finished":
                status = "interrupted" if isinstance(shown, KeyboardInterrupt | distributed.PeerError) else "failed"
                with contextlib.suppress(DenseCLError):  # the disk may be full: the first message is the one to show
                    _write(record.model_copy(update={"status": status}), result)
            if isinstance(shown, KeyboardInterrupt) and distributed.claim_failure():
                events.line(f"stopped; the same command goes on from the last finished epoch: {_command()}")
            if shown is error:
                raise
            raise shown from error
        checkpoints.close()
        return record


@dataclass
class Work:
    """The parts of a run that is carried out."""

    plan: Plan
    loop: Loop
    checkpoints: Checkpoints
    workers: int
    events: Listeners
    torn: bool = False  # the record of the killed run cannot be read

    def read(self, result: Path, new: Record) -> Record:
        """Read the record of a killed run; a torn one is made again from the checkpoints of its steps."""
        if not result.is_file():
            return new
        try:
            return read_record(result)
        except RecordError as error:
            self.torn, records = True, self.checkpoints.records()
            again = f"; made again, with {len(records)} steps, from {self.checkpoints.folder}" if records else ""
            self.events.line(f"refused: {error}{again}")
            return new.model_copy(update={"steps": [StepRecord.model_validate(record) for record in records]})

    def go_on(self, result: Path, new: Record) -> tuple[Record, float]:
        """Bring the loop to the point where a killed run stopped; its record, and its seconds in the step in training.

        A run that goes on in another number of processes, or from a record that was changed, says so in its record.
        """
        old = from_main(lambda: self.read(result, new))
        if not new.resumable:
            return new, 0.0
        if old.environment.get("stream") != new.environment["stream"]:
            self.events.line("the data has changed since the run began: it starts over")
            return new, 0.0
        say, folder, steps = self.events.line, self.plan.folder, len(self.loop.stream.steps)
        point = from_main(lambda: find_point(folder, self.checkpoints, len(old.steps), steps, say))
        go_on(self.loop, point, say)
        before, world = old.environment.get("world", 1), distributed.world()
        earlier = list(old.environment.get("earlier_worlds", []))
        if before != world and (point.finished or point.state):
            say(f"going on in {world} process{'es' * (world > 1)} instead of {before}")
            earlier.append(
                {"world": before, "until_step": point.finished, "epoch": (point.state or {}).get("epoch", 0)}
            )
        environment = new.environment | ({"earlier_worlds": earlier} if earlier else {})
        environment |= {"edited": True} if old.edited and point.finished else {}
        steps_done = list(old.steps[: point.finished])
        return new.model_copy(update={"steps": steps_done, "environment": environment}), point.seconds

    def train(self, experience: Experience, spent: float) -> None:
        """Train a step, with a checkpoint after each epoch; `spent` seconds went into it before."""
        start = time.perf_counter() - spent

        def keep() -> None:
            self.checkpoints.save_epoch({**self.loop.state(), "seconds": time.perf_counter() - start})

        self.loop.after_epoch = keep if self.plan.method.resumable else None
        self.loop.train([experience])

    def tell_why(self) -> None:
        """Say why step 0 of a method of the user's own is not that of other methods."""
        if reason := proof.advice(self.plan.method, source_hash()):
            self.events.line(reason)

    def step(self, experience: Experience, record: Record, *, share: bool, spent: float) -> Record:
        """Train, evaluate and keep one step; the record with it."""
        plan, loop, number = self.plan, self.loop, experience.step
        if loop.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(loop.device)

        start = time.perf_counter()
        first = plan.first if number == 0 else None
        if first is not None:
            trained = take(first, self.loop)
        elif number == 0 and share:
            self.tell_why()
            trained = train_or_load(plan, loop, lambda: self.train(experience, spent), self.events.line)
        else:
            if number == 0:
                self.tell_why()
            self.train(experience, spent)
            trained = FirstStep(loop.iterations, time.perf_counter() - start, loaded=False)
        self.events.evaluating(number)
        settings = plan.settings.evaluation
        evaluations = evaluate(loop, number, settings.batch, self.workers, record.steps, settings)
        if first is not None:
            from densecl.runner.given import check_score

            self.events.line(check_score(first, evaluations[0].metrics["iou"], len(experience.new_classes)))
        size = None
        if loop.stream.kind == "tasks" or loop.stream.by_task:
            from densecl.runner.keep import keep_masks, stored

            size = stored(loop) if loop.stream.kind == "tasks" else None
            if loop.stream.by_task and is_main():
                keep_masks(loop, plan.folder, number, plan.hash)
        if is_main():
            save_weights(loop.network, plan.settings, plan.folder, number, plan.hash)
        step = StepRecord(
            step=number,
            task=experience.task.name,
            new_classes=list(experience.new_classes),
            iterations=trained.iterations,
            seconds=trained.seconds + (0.0 if trained.loaded else spent),
            peak_memory=peak_memory(loop.device),
            stored_bytes=loop.stored_bytes(),
            parameters=_parameters(loop),
            shared=trained.loaded,
            notes=loop.notes(),
            model=size,
            evaluations=evaluations,
        )
        if record.resumable:
            self.checkpoints.save_step(number, loop.method_state(), plain(step.model_dump(mode="json")))
        if is_main():
            pictures.keep(loop, plan.folder, number, self.events.line)
        self.events.step_finished(step)
        status = "finished" if number == len(loop.stream.steps) - 1 else "running"
        return record.model_copy(update={"steps": [*record.steps, step], "status": status})


def _remove(folder: Path, output: Path) -> None:
    """Remove a run's folder, and the folders up to `output` that it leaves empty."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # not empty
        for parent in folder.parents:
            if parent == output.parent:
                break
            parent.rmdir()


def _check_alike(plan: Plan) -> None:
    """Refuse processes that read other data or settings."""
    for number, theirs in enumerate(distributed.from_all(plan.hash)):
        if theirs != plan.hash:
            raise RunError(
                f"process {number} would train another run than process {distributed.rank()} (hash {theirs}, not "
                f"{plan.hash})",
                "every host needs the same data, code and weights",
            )


def _parameters(loop: Loop) -> int:
    """Count the numbers that predict all tasks learnt so far, without running statistics."""
    statistics = {name for name, _ in loop.network.named_buffers()}
    return sum(tensor.numel() for name, tensor in loop.strategy.model_tensors().items() if name not in statistics)


def _write(record: Record, path: Path) -> None:
    if is_main():
        record.write(path)


def _command() -> str:
    """The command line of this run, or a call in Python."""
    typed = Path(sys.argv[0]).name in ("densecl", "__main__.py")
    return shlex.join(["densecl", *sys.argv[1:]]) if typed else "densecl.run(...) as before"


def _set_aside(folder: Path) -> Path:
    """Move what a run has trained into a folder that no table looks into."""
    aside = next(place for number in count(1) if not (place := folder / f"aside{number}").exists())
    aside.mkdir()
    (aside / APART).touch()
    (folder / FILE_NAME).rename(aside / f"{FILE_NAME}.torn")
    for name in PARTS:
        if (folder / name).is_dir():
            (folder / name).rename(aside / name)
    return aside


def _finished(path: Path, events: Listeners) -> Record | None:
    """Read the finished record at `path`, and say so; None for a broken or unfinished one."""
    with contextlib.suppress(RecordError):
        record = read_record(path) if path.is_file() else None
        if record and record.status == "finished":
            events.line(f"already finished: {path} (--fresh starts over)")
            return record
    return None
