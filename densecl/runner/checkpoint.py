"""Weights of finished steps, checkpoints of epochs and steps, and the point from which a killed run goes on.

Weights are safetensors with the settings inside. A checkpoint is a line that names its kind, the SHA-256 of the rest,
and a state dict written by torch; it is read with `weights_only`, so nothing in a file is ever executed. While a step
trains, the last two epochs are kept. All files are written atomically.
"""

import contextlib
import hashlib
import io
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from densecl.errors import RunError
from densecl.files import atomic_path
from densecl.models.network import Network
from densecl.settings.recipe import RunSettings
from densecl.tensors import check_bound, load_plain, read_tensors, save_tensors
from densecl.training.loop import Loop

MAGIC = b"densecl checkpoint 1\n"
NAME = re.compile(r"step(\d+)-epoch(\d+)\.ckpt$")
AGAIN = "run it again; where it is finished, with --fresh"  # what to do about weights that are gone
KEPT = 2  # epochs: when the last file is torn, the one before is used


def weights_path(folder: Path, step: int) -> Path:
    """The file of the weights after a step."""
    return folder / "weights" / f"step{step}.safetensors"


def save_weights(network: Network, settings: RunSettings, folder: Path, step: int, run: str) -> None:
    """Write the network as it is after a step, with the settings and the hash of the run."""
    bound = {"kind": "weights", "run": run, "step": str(step)}
    metadata = {"densecl": "1", **bound, "settings": settings.model_dump_json()}
    save_tensors(network.state_dict(), weights_path(folder, step), metadata)


def read_weights(folder: Path, step: int, run: str) -> dict[str, Tensor]:
    """Read the weights after a step of the run with this hash; missing, damaged and other ones are a RunError."""
    path = weights_path(folder, step)
    if not path.is_file():
        raise RunError(f"there are no weights of step {step} at {path}", AGAIN)
    return read_tensors(path, kind="weights", run=run, step=str(step))[0]


def load_weights(network: Network, folder: Path, step: int, run: str) -> None:
    """Read the weights of a step into a network that has grown as far; those of another network are a RunError."""
    try:
        network.load_state_dict(read_weights(folder, step, run))
    except RuntimeError as error:
        fault = str(error).splitlines()[-1].strip()
        raise RunError(f"{weights_path(folder, step)} holds another network: {fault}") from error


def pack(state: dict[str, Any]) -> bytes:
    """The bytes of a checkpoint."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    return MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def unpack(path: Path, run: str, **expected: Any) -> dict[str, Any]:
    """Read the state in a checkpoint of the run with hash `run`, with these other values; every fault is a RunError."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error
    if not raw.startswith(MAGIC):
        raise RunError(f"{path} is not a checkpoint of densecl; it was not opened")
    digest, _, content = raw[len(MAGIC) :].partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise RunError(f"{path} is torn or changed: its checksum does not fit")
    state = load_plain(io.BytesIO(content), path)
    if not isinstance(state, dict) or "run" not in state:
        raise RunError(f"{path} is not a checkpoint of a run")
    check_bound(path, state, {"run": run, **expected})
    return state


class Checkpoints:
    """The checkpoints of one run folder; epochs are written by a thread while training goes on.

    Args:
        run: the hash of the run. keep: keep all epochs instead of the last two of a step.
        writes: True in the one process that writes them.
    """

    def __init__(self, folder: Path, run: str, keep: bool = False, writes: bool = True):
        self.folder, self.run, self.keep, self.writes = folder / "checkpoints", run, keep, writes
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def epoch_path(self, step: int, epoch: int) -> Path:
        """The file of a finished epoch."""
        return self.folder / f"step{step}-epoch{epoch:06d}.ckpt"

    def step_path(self, step: int) -> Path:
        """The file of the method's state after a finished step."""
        return self.folder / f"step{step}-done.ckpt"

    def save_epoch(self, state: dict[str, Any]) -> None:
        """Keep a state; its tensors are copied now, and written while training goes on."""
        if self.writes:
            self.wait()
            content = {**state, "run": self.run, "kind": "epoch"}
            self._pending = self._pool.submit(self._write_epoch, _copied(content))

    def save_step(self, step: int, method: dict[str, Any], record: dict[str, Any] | None = None) -> None:
        """Keep the method's state after a step, and its record in case `result.json` is torn; see `save_weights`."""
        if self.writes:
            self.wait()
            bound = {"run": self.run, "step": step, "kind": "step"}
            _write(self.step_path(step), {**bound, "method": _copied(method), "record": record})

    def prune(self, step: int) -> None:
        """Remove the epochs of a step that is finished and recorded."""
        self.wait()
        for path in () if self.keep or not self.writes else self.folder.glob(f"step{step}-epoch*.ckpt"):
            path.unlink(missing_ok=True)

    def any(self) -> bool:
        """True if there is a checkpoint."""
        return next(self.folder.glob("*.ckpt"), None) is not None

    def wait(self) -> None:
        """Wait until the last epoch is written; a full disk or a folder that cannot be written is a RunError."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Write what is pending and stop the thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def last_epoch(self, step: int, say: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest readable state of a step; files that are refused are named."""
        files = self.folder.glob(f"step{step}-*.ckpt")
        epochs = [(int(match[2]), path) for path in files if (match := NAME.search(path.name))]
        for epoch, path in sorted(epochs, reverse=True):
            try:
                return unpack(path, self.run, step=step, epoch=epoch, kind="epoch")
            except RunError as error:
                say(f"refused: {error}")
        return None

    def after_step(self, step: int) -> dict[str, Any]:
        """Read the method's state after a finished step, and under `record` that of the step; see `unpack`."""
        return unpack(self.step_path(step), self.run, step=step, kind="step")

    def records(self) -> list[Any]:
        """The records of the finished steps, as far as their checkpoints have them."""
        records: list[Any] = []
        with contextlib.suppress(RunError):
            while record := self.after_step(len(records)).get("record"):
                records.append(record)
        return records

    def _write_epoch(self, state: dict[str, Any]) -> None:
        step, epoch = state["step"], state["epoch"]
        _write(self.epoch_path(step, epoch), state)
        if not self.keep:
            self.epoch_path(step, epoch - KEPT).unlink(missing_ok=True)


def _write(path: Path, state: dict[str, Any]) -> None:
    content = pack(state)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _copied(value: Any) -> Any:
    """A copy on the CPU: training changes tensors in place."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value


class Point(NamedTuple):
    """The point from which a killed run goes on.

    Attributes:
        finished: number of steps that count as finished. weights, method: of the network and the method after them.
        state: of the step in training at the end of an epoch, None between steps.
    """

    finished: int
    weights: dict[str, Tensor] | None
    method: dict[str, Any] | None
    state: dict[str, Any] | None

    @property
    def seconds(self) -> float:
        """Seconds already spent in the step in training."""
        return 0.0 if self.state is None else float(self.state.get("seconds", 0.0))


def find_point(folder: Path, checkpoints: Checkpoints, finished: int, steps: int, say: Callable[[str], None]) -> Point:
    """Find the last point of a killed run in its files; `say` hears which are damaged, and the point before is taken.

    Of all `steps`, the record has the first `finished` ones.
    """
    weights = method = None
    gone = (weights_path(folder, step) for step in range(finished) if not weights_path(folder, step).is_file())
    if path := next(gone, None):  # the folder shall end as if the run had never been stopped
        finished = int(path.stem.removeprefix("step"))
        say(f"{path} is gone: step {finished} and all after it are trained again")
    while finished and method is None:
        try:
            weights = read_weights(folder, finished - 1, checkpoints.run)
            method = checkpoints.after_step(finished - 1)["method"]
        except RunError as error:
            say(f"refused: {error}")
            finished -= 1
    state = checkpoints.last_epoch(finished, say) if finished < steps else None
    return Point(finished, weights if finished else None, method, state)


def go_on(loop: Loop, point: Point, say: Callable[[str], None]) -> None:
    """Bring a loop, as built and not trained, to a point; its next `train` goes on from there."""
    for step in loop.stream.steps[: point.finished]:
        loop.enter(step)
    if point.weights is not None and point.method is not None:
        loop.network.load_state_dict(point.weights)
        loop.load_method_state(point.method)
    if point.state is not None:
        loop.resume(point.state)
        epoch, iterations = point.state["epoch"], point.state["iterations"]
        say(f"going on in step {point.finished} after epoch {epoch} ({iterations} iterations)")
    elif point.finished:
        say(f"going on at step {point.finished}")
