"""Banks of synthetic images on disk, made once for all runs that ask for the same.

A bank is a folder named by a hash of all that decides its images: the weights of teacher and student, the wanted
classes, seed, kind of device and every setting. It holds a file for each batch, `bank.json` with request and quality,
and `gallery.png`. Batches do not depend on each other: an interrupted bank goes on with the next one, a batch with its
last state.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from densecl.errors import RunError
from densecl.files import locked, write_text
from densecl.inversion.gallery import best_of_each_class, write_gallery
from densecl.inversion.quality import Quality, measure_quality
from densecl.inversion.settings import Inversion, choose_targets
from densecl.inversion.statistics import matched_layers
from densecl.inversion.synthesis import Job, Made, pixel_range, synthesise
from densecl.models.network import Network
from densecl.seeding import derive
from densecl.tensors import checksum, read_tensors, save_tensors

VERSION = 1  # raised when the code makes other images from the same settings
FILE_NAME = "bank.json"
SAY_EVERY = 10.0  # seconds
AGAIN = "its images are synthesised again"

Say = Callable[[str], None]
Watch = Callable[[str], Callable[[int, int], None]]  # what is done -> a callable (done, total)


@dataclass(frozen=True)
class Request:
    """The content that a bank shall have."""

    labels: tuple[int, ...]  # the classes
    images: int  # of each class
    per_image: int  # classes that an image shows, at most
    size: tuple[int, int]  # (height, width)
    seed: int  # of all draws
    mean: Tensor  # of the normalisation, (3, 1, 1), as std
    std: Tensor
    settings: Inversion

    def describe(self) -> dict[str, Any]:
        """Plain values for JSON."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        content |= {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}
        return content | {"settings": dataclasses.asdict(self.settings)}


class Bank(NamedTuple):
    """Synthetic images."""

    images: Tensor  # (N, 3, H, W) uint8
    targets: Tensor  # (N, C) bool: the classes each was made for
    key: str  # hash of all that decides the images
    hash: str  # of the images themselves
    quality: Quality
    folder: Path


def bank_key(request: Request, teacher: Network, student: Network | None, device: torch.device) -> str:
    """Hash of all that decides the images' bits."""
    cuda = device.type == "cuda"
    content = {
        "version": VERSION if request.settings.divergence == "js" else 2,
        "teacher": checksum(teacher.state_dict()),
        "student": "" if student is None else checksum(student.state_dict()),
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
    """The images that a teacher makes, from disk where they are there and whole, else synthesised and put there.

    Another process that makes the same bank is waited for. A file that is missing, broken or of another bank is named
    and made again. `root` is the folder of all banks; a `student` is what the images shall confuse. `say` hears which
    files are refused or missing, without `watch` also the progress and the time left.

    Raises:
        SettingError: a teacher without BatchNorm, a class it does not know, or no images at all.
        RunError: the folder cannot be written.
    """
    matched_layers(teacher)
    targets = choose_targets(request.labels, request.images, teacher.n_outputs, request.seed, request.per_image)
    device = torch.device(device)
    key = bank_key(request, teacher, student, device)
    work = _Work(root / key, request, teacher, student, device, say, watch)
    waiting = "waiting for another run to synthesise the same images"
    with locked(work.folder.with_suffix(".lock"), lambda: say(waiting), f"{key}/*"):
        parts = targets.split(request.settings.batch)
        images = torch.cat([work.batch(number, part) for number, part in enumerate(parts)])
        digest = checksum({"images": images, "targets": targets})
        quality = None if work.made else _quality(work.folder)
        if quality is None:
            seen = images, targets, teacher, request.mean, request.std, device
            quality = measure_quality(*seen)
            _, best, labels = best_of_each_class(*seen)
            content = {
                "densecl": 1,
                "key": key,
                "hash": digest,
                "images": len(images),
                "seconds": round(work.seconds, 3),
            }
            content |= {"quality": quality.as_dict(), "request": request.describe()}
            with _said(say):
                write_gallery(work.folder / "gallery.png", images, best, labels)
                write_text(work.folder / FILE_NAME, json.dumps(content, indent=1) + "\n")
        return Bank(images, targets, key, digest, quality, work.folder)


def load_bank(folder: Path, digest: str, say: Say = lambda _: None) -> Bank | None:
    """A finished bank by its folder, if its images have the hash `digest`; else None, and the fault is said.

    Without its description the images are as good; their quality is unknown then.
    """
    try:
        paths = sorted(folder.glob("batch-*.safetensors"))
        parts = [read_tensors(path, AGAIN, kind="images", bank=folder.name)[0] for path in paths]
        images, targets = (torch.cat([part[name] for part in parts]) for name in ("images", "targets"))
    except (OSError, ValueError, KeyError, RuntimeError, RunError) as error:
        say(f"refused: the images in {folder} cannot be read ({error}); they are synthesised again")
        return None
    if checksum({"images": images, "targets": targets}) != digest:
        say(f"refused: {folder} holds other images than before; they are synthesised again")
        return None
    quality = _quality(folder)
    if quality is None:
        say(f"{folder / FILE_NAME} cannot be read; the images beside it are whole")
    return Bank(images, targets, folder.name, digest, quality or Quality(*[math.nan] * len(Quality._fields)), folder)


def _quality(folder: Path) -> Quality | None:
    """The quality in the description of a bank; None if it cannot be read."""
    try:
        content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))["quality"]
        return Quality(**{name: math.nan if value is None else float(value) for name, value in content.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextlib.contextmanager
def _said(say: Say) -> Iterator[None]:
    """Say that a file cannot be written, such as on a full disk; the images themselves are at hand."""
    try:
        yield
    except RunError as error:
        say(f"{error}; the run goes on without this file")


@dataclass
class _Work:
    """The making of one bank."""

    folder: Path  # named by the key
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
        stored = self._read(path)
        if stored is not None and stored["images"].shape == (len(targets), 3, *self.request.size):
            return stored["images"]
        pixels = self._make(path, number, targets).images.cpu() * self.request.std.cpu() + self.request.mean.cpu()
        images = (pixels * 255).round().clamp(0, 255).to(torch.uint8)
        self._write({"images": images, "targets": targets}, path)
        path.with_suffix(".state").unlink(missing_ok=True)
        return images

    def _make(self, path: Path, number: int, targets: Tensor) -> Made:
        request, s, state = self.request, self.request.settings, path.with_suffix(".state")
        batches = -(-len(request.labels) * request.images // s.batch)
        text = f"synthesising {len(targets)} images (batch {number + 1} of {batches})"
        seen = _saying(text, self.say) if self.watch is None else self.watch(text)

        start, valid = time.perf_counter(), pixel_range(request.mean.cpu(), request.std.cpu())
        made = synthesise(
            self.teacher,
            Job(targets, request.size, derive(request.seed, "synthesis", number), valid),
            s,
            student=self.student,
            device=self.device,
            kept=self._read(state),
            keep=lambda values: self._write(dict(values), state),
            progress=lambda done: seen(done, s.iterations),
        )
        self.made += 1
        self.seconds += time.perf_counter() - start
        return made

    def _read(self, path: Path) -> dict[str, Tensor] | None:
        """The tensors of a file of this bank; None, and said, for a file that is broken or of another bank."""
        if not path.is_file():
            if path.suffix == ".safetensors" and (self.folder / FILE_NAME).is_file():
                self.say(f"{path} is missing: its images are synthesised again")
            return None
        try:
            return read_tensors(path, AGAIN, kind=self._kind(path), bank=self.folder.name)[0]
        except RunError as error:
            self.say(f"refused: {error}")
            return None

    def _write(self, tensors: dict[str, Tensor], path: Path) -> None:
        with _said(self.say):
            save_tensors(tensors, path, {"densecl": "1", "kind": self._kind(path), "bank": self.folder.name})

    def _kind(self, path: Path) -> str:
        return "images" if path.suffix == ".safetensors" else "state"


def _saying(text: str, say: Say) -> Callable[[int, int], None]:
    """Hears the iterations of a batch, and says the progress and the time left now and then."""
    start = said = time.monotonic()
    first = -1  # iterations done before the start

    def hear(done: int, total: int) -> None:
        nonlocal said, first
        now, first = time.monotonic(), done - 1 if first < 0 else first
        if now - said >= SAY_EVERY:
            said, left = now, (now - start) / (done - first) * (total - done)
            say(f"{text}: iteration {done} of {total}, about {left:.0f} s left")

    return hear
