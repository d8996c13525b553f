"""Synthetic images on disk, made once for all runs that ask for the same.

A bank is a folder named by a hash of all that decides its images: the weights of teacher and student, the wanted
classes, seed, kind of device and every setting. It holds a file a batch, `bank.json` with what it is and how good, and
`gallery.png`. Batches do not depend on each other, so an interrupted bank goes on with the next one, and a batch with
its last state.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import torch
from torch import Tensor

from densecl.errors import RunError
from densecl.files import write_text
from densecl.inversion.gallery import write_gallery
from densecl.inversion.quality import Quality, measure_quality
from densecl.inversion.settings import Inversion, choose_targets
from densecl.inversion.statistics import matched_layers
from densecl.inversion.synthesis import Job, Made, State, pixel_range, synthesise
from densecl.models.network import Network
from densecl.seeding import derive
from densecl.tensors import checksum, read_tensors, save_tensors

VERSION = 1  # raised when the code makes other images from the same settings
FILE_NAME = "bank.json"
SAY_EVERY = 10.0  # seconds

Say = Callable[[str], None]
Watch = Callable[[str], Callable[[int, int], None]]  # what is done -> a callable (done, total)


@dataclass(frozen=True)
class Request:
    """What a bank shall hold.

    Attributes:
        labels: the classes. images: of each. per_image: classes an image shows, at most. size: (height, width).
        seed: of all draws. mean, std: of the normalisation, (3, 1, 1) each. settings: of the synthesis.
    """

    labels: tuple[int, ...]
    images: int
    per_image: int
    size: tuple[int, int]
    seed: int
    mean: Tensor
    std: Tensor
    settings: Inversion

    def describe(self) -> dict[str, Any]:
        """As JSON holds it."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        content |= {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}
        return content | {"settings": dataclasses.asdict(self.settings)}


class Bank(NamedTuple):
    """Synthetic images.

    Attributes:
        images: (N, 3, H, W) uint8. targets: (N, C) bool, the classes each was made for.
        key: hash of all that decides them. hash: of the images themselves. quality: figures. folder: where they lie.
    """

    images: Tensor
    targets: Tensor
    key: str
    hash: str
    quality: Quality
    folder: Path


def fingerprint(network: torch.nn.Module | None) -> str:
    """Hash of all weights and statistics, by name; empty for no network."""
    return "" if network is None else checksum(network.state_dict())


def bank_key(request: Request, teacher: Network, student: Network | None, device: torch.device) -> str:
    """Hash of all that decides the images' bits."""
    cuda = device.type == "cuda"
    content = {
        "version": VERSION,
        "teacher": fingerprint(teacher),
        "student": fingerprint(student),
        "device": torch.cuda.get_device_name(device) if cuda else f"{device.type} x {torch.get_num_threads()}",
        "torch": torch.__version__,
        **request.describe(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def open_bank(
    root: Path,
    request: Request,
    teacher: Network,
    *,
    student: Network | None = None,
    device: torch.device | str = "cpu",
    say: Say = lambda _: None,
    watch: Watch | None = None,
) -> Bank:
    """The images, from disk where they are there and whole, else synthesised and put there.

    Another process that makes the same bank is waited for. A file that is missing, broken or of another bank is named
    and made again.

    Args:
        root: folder of all banks.
        request: what is wanted.
        teacher: the network that is inverted.
        student: whom the images confuse.
        device: where the networks are.
        say: hears what is refused or missing; without `watch` also how far it is, and how long it will take.
        watch: gives the callable that hears how many iterations of how many are done.

    Raises:
        SettingError: a teacher without BatchNorm, a class it does not know, or no images at all.
        RunError: the folder cannot be written.
    """
    matched_layers(teacher)
    targets = choose_targets(request.labels, request.images, teacher.n_outputs, request.seed, request.per_image)
    device = torch.device(device)
    key = bank_key(request, teacher, student, device)
    work = _Work(root / key, key, request, teacher, student, device, say, watch)
    lock = _lock(work.folder, say)
    try:
        images = torch.cat(
            [work.batch(number, part) for number, part in enumerate(targets.split(request.settings.batch))]
        )
        digest = checksum({"images": images, "targets": targets})
        known = None if work.made else load_bank(work.folder, digest)
        if known is not None:
            return known
        quality = measure_quality(images, targets, teacher, request.mean, request.std, device)
        bank = Bank(images, targets, key, digest, quality, work.folder)
        write_gallery(work.folder / "gallery.png", images, targets, teacher, request.mean, request.std, device)
        _describe(bank, request, work.seconds)
        return bank
    finally:
        lock.release()


def load_bank(folder: Path, digest: str, say: Say = lambda _: None) -> Bank | None:
    """A finished bank by its folder, if all its images are there and have the hash `digest`; else says what is wrong.

    For images of a network that is gone: they cannot be made again to the bit.
    """
    try:
        content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        paths = sorted(folder.glob("batch-*.safetensors"))
        parts = [read_tensors(path, "its images are synthesised again")[0] for path in paths]
        images, targets = (torch.cat([part[name] for part in parts]) for name in ("images", "targets"))
        quality = Quality(**{name: math.nan if v is None else v for name, v in content["quality"].items()})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, RunError) as error:
        say(f"refused: the images in {folder} cannot be read ({error}); they are synthesised from the present teacher")
        return None
    if checksum({"images": images, "targets": targets}) != digest:
        say(f"refused: {folder} holds other images than before; they are synthesised from the present teacher")
        return None
    return Bank(images, targets, content["key"], digest, quality, folder)


def _lock(folder: Path, say: Say) -> filelock.BaseFileLock:
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say("waiting for another run to synthesise the same images")
        lock.acquire()
    return lock


@dataclass
class _Work:
    """Making one bank."""

    folder: Path
    key: str
    request: Request
    teacher: Network
    student: Network | None
    device: torch.device
    say: Say
    watch: Watch | None = None
    made: int = 0
    seconds: float = 0.0

    def batch(self, number: int, targets: Tensor) -> Tensor:
        """One batch of images (b, 3, H, W) uint8, read or made."""
        path = self.folder / f"batch-{number:04d}.safetensors"
        found = self._read(path)
        if found is not None and found["images"].shape == (len(targets), 3, *self.request.size):
            return found["images"]
        images = self._to_bytes(self._make(path, number, targets))
        save_tensors({"images": images, "targets": targets}, path, {"densecl": "1", "bank": self.key})
        path.with_suffix(".state").unlink(missing_ok=True)
        return images

    def _make(self, path: Path, number: int, targets: Tensor) -> Made:
        s, state = self.request.settings, path.with_suffix(".state")
        batches = -(-len(self.request.labels) * self.request.images // s.batch)
        text = f"synthesising {len(targets)} images (batch {number + 1} of {batches})"
        seen = _Eta(text, self.say) if self.watch is None else self.watch(text)

        def keep(values: State) -> None:
            save_tensors(dict(values), state, {"densecl": "1", "bank": self.key})

        start = time.perf_counter()
        made = synthesise(
            self.teacher,
            Job(
                targets,
                self.request.size,
                derive(self.request.seed, "synthesis", number),
                pixel_range(self.request.mean.cpu(), self.request.std.cpu()),
            ),
            s,
            student=self.student,
            device=self.device,
            kept=self._read(state),
            keep=keep,
            progress=lambda done: seen(done, s.iterations),
        )
        self.made += 1
        self.seconds += time.perf_counter() - start
        return made

    def _read(self, path: Path) -> dict[str, Tensor] | None:
        """The tensors of a file of this bank; one that is broken or of another bank is named and left aside."""
        if not path.is_file():
            if path.suffix == ".safetensors" and (self.folder / FILE_NAME).is_file():
                self.say(f"{path} is missing: its images are synthesised again")
            return None
        try:
            tensors, metadata = read_tensors(path, "its images are synthesised again")
        except RunError as error:
            self.say(f"refused: {error}")
            return None
        if metadata.get("bank") != self.key:
            self.say(f"refused: {path} is of another bank; its images are synthesised again")
            return None
        return tensors

    def _to_bytes(self, made: Made) -> Tensor:
        pixels = made.images.cpu() * self.request.std.cpu() + self.request.mean.cpu()
        return (pixels * 255).round().clamp(0, 255).to(torch.uint8)


class _Eta:
    """Says now and then how far a batch is and how long it will take."""

    def __init__(self, text: str, say: Say):
        self.text, self.say = text, say
        self.start = self.said = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self.first = done - 1 if self.first is None else self.first
        if now - self.said >= SAY_EVERY:
            self.said = now
            left = (now - self.start) / (done - self.first) * (total - done)
            self.say(f"{self.text}: iteration {done} of {total}, about {left:.0f} s left")


def _describe(bank: Bank, request: Request, seconds: float) -> None:
    content = {
        "densecl": 1,
        "key": bank.key,
        "hash": bank.hash,
        "images": len(bank.images),
        "seconds": round(seconds, 3),
        "quality": bank.quality.as_dict(),
        "request": request.describe(),
    }
    write_text(bank.folder / FILE_NAME, json.dumps(content, indent=1) + "\n")
