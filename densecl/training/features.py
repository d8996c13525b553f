"""Frozen encoders: what stays as it is, and their maps kept on disk, so that an epoch costs what the decoder costs.

Maps are found by the content of the encoder and of the image, so a flipped image has maps of its own. They are rounded
to float16 whether they were kept or not, and each is computed alone: a run does not depend on what the cache has.
"""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from densecl import models
from densecl.data.places import cache_folder
from densecl.errors import RunError, SettingError
from densecl.files import atomic_path
from densecl.models.encoders import Encoder
from densecl.models.network import Backbone, Network
from densecl.settings.catalogue import source_hash
from densecl.settings.recipe import TrainingSettings
from densecl.tasks import Task
from densecl.tensors import checksum, same_tensors

if TYPE_CHECKING:
    from densecl.training.loop import Loop

Maps = Sequence[Tensor] | None
FOLDER = "features"  # in the user's cache
CHECKED = 4  # bytes of the CRC-32 at the end of a file


def begin(loop: "Loop") -> "FeatureCache | None":
    """Train nothing of the encoder at a step whose settings say so; its maps are kept where they say that too."""
    if not loop.settings.freezes(loop.step):
        return None
    fix(loop.network.backbone)
    return FeatureCache(loop) if loop.settings.cache_features else None


def fix(backbone: Backbone) -> None:
    """Let nothing of the encoder be trained."""
    for module in backbone.encoder_modules:
        module.requires_grad_(False)


def settle(loop: "Loop") -> None:
    """Let BatchNorm and dropout of a frozen encoder be as in evaluation."""
    for module in loop.network.backbone.encoder_modules if loop.settings.freezes(loop.step) else ():
        module.eval()


def kept(loop: "Loop", task: Task, loaded: Tensor, image: Tensor) -> Maps:
    """The maps for a batch of a task's test images, as `FeatureCache` has them; None where they are not kept."""
    if not loop.settings.cache_features or not loop.settings.freezes(loop.step):
        return None
    if loop.features is None:  # the step was not trained here
        loop.features = FeatureCache(loop)
    return loop.features(loaded, image, task)


def shared(loop: "Loop", image: Tensor) -> Maps:
    """The maps of images that are not kept, where one frozen encoder serves the network and its teacher; else None."""
    cache = loop.features
    return cache.encoder(image) if cache is not None and cache.teaches else None


def check(backbone: Backbone, settings: TrainingSettings) -> None:
    """Refuse an encoder whose maps cannot be kept, where they shall be."""
    if settings.cache_features:
        _encoder(backbone)


def _encoder(backbone: Backbone) -> Encoder:
    encoder = getattr(backbone, "encoder", None)
    if not isinstance(encoder, Encoder):
        raise SettingError(
            f"training.cache_features: {type(backbone).__name__} has no encoder of its own",
            "use a backbone such as fcn, deeplabv3 or bisenet, or leave it out",
        )
    if encoder.raw_names:
        raise SettingError(
            "training.cache_features: the method looks at maps before their last activation, which are not kept",
            "leave it out",
        )
    return encoder


class FeatureCache:
    """The maps of a frozen encoder by image, float16, in files of one image each.

    All such caches of a user together take `loop.cache_gib`; that they do is said once.
    """

    def __init__(self, loop: "Loop"):
        self.encoder, self.precision = _encoder(loop.network.backbone), loop.precision
        self.say: Callable[[str], None] = getattr(loop.events, "line", lambda _text: None)
        self.root = cache_folder() / FOLDER
        self.content = checksum(self.encoder.state_dict())
        self.folder = self.root / _key(loop, self.encoder, self.content)
        self.tasks: dict[str, bytes] = {}  # what tells the images of a task from those of others
        self.tensors = [*self.encoder.parameters(), *self.encoder.buffers()]
        self.version = self._version()
        self.limit = loop.cache_gib * 2**30
        self.taken = _size(self.root) if self.limit else 0.0
        self.shapes: dict[tuple[int, ...], list[torch.Size]] = {}  # of maps, by the shape of an image
        self.full = not self.limit
        # the teacher's encoder is this one, unless a method has changed either of them when the step began
        self.teaches = loop.teacher is not None and same_tensors(
            _encoder(loop.teacher.backbone).state_dict(), self.encoder.state_dict()
        )

    def __call__(self, loaded: Tensor, image: Tensor, task: Task) -> list[Tensor]:
        """The encoder's maps (B, C, h, w) of a batch as the loader gave it, uint8, and as the network sees it."""
        self._check_unchanged()
        key = self.tasks.get(task.name)
        if key is None:  # a task may change its images
            content = json.dumps([task.kind, task.settings, task.source()], sort_keys=True, default=str)
            key = self.tasks[task.name] = hashlib.sha256(content.encode()).digest()
        kept = [self._maps(before, after, key) for before, after in zip(loaded, image, strict=True)]
        return [torch.stack(maps).to(image.device).float() for maps in zip(*kept, strict=True)]

    def _version(self) -> int:
        """Grows with each change in place of the encoder's tensors."""
        return sum(tensor._version for tensor in self.tensors)

    def _check_unchanged(self) -> None:
        """Refuse a method that changes the frozen encoder: its maps would be kept as those of the one before."""
        if self.version == self._version():
            return
        if checksum(self.encoder.state_dict()) != self.content:
            raise SettingError("training.cache_features: the method has changed the frozen encoder", "leave it out")
        self.version = self._version()  # the same numbers were loaded again

    def _maps(self, loaded: Tensor, image: Tensor, key: bytes) -> list[Tensor]:
        """The maps (C, h, w) of one image, float16 on the CPU."""
        content = loaded.cpu().contiguous().numpy()
        digest = hashlib.blake2b(key + repr(content.shape).encode(), digest_size=16)
        digest.update(content.data)
        path = self.folder / digest.hexdigest()
        shapes = self.shapes.get(content.shape)
        if shapes is None or (flat := _read(path, sum(shape.numel() for shape in shapes))) is None:
            maps = self._compute(image)
            self.shapes[content.shape] = [each.shape for each in maps]
            self._write(path, torch.cat([each.flatten() for each in maps]).numpy().tobytes())
            return maps
        parts = torch.from_numpy(flat).split([shape.numel() for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    @torch.no_grad()
    def _compute(self, image: Tensor) -> list[Tensor]:
        with self.precision.autocast():
            maps = [each[0].half().cpu() for each in self.encoder(image[None])]
        if not all(each.isfinite().all() for each in maps):
            raise SettingError(
                "training.cache_features: the encoder's maps have values that float16 cannot hold", "leave it out"
            )
        return maps

    def _write(self, path: Path, content: bytes) -> None:
        if self.full:
            return
        if self.taken + len(content) > self.limit:
            self._stop(f"its {self.limit / 2**30:g} GiB are full; raise loader.cache_gib or remove folders in it")
            return
        try:
            with atomic_path(path, sync=False) as temporary:  # what a crash leaves is seen by its checksum
                temporary.write_bytes(content + zlib.crc32(content).to_bytes(CHECKED, "big"))
        except RunError as error:
            self._stop(getattr(error.__cause__, "strerror", None) or str(error))
        self.taken += len(content) + CHECKED

    def _stop(self, reason: str) -> None:
        self.full = True
        self.say(f"features of further images are not kept in {self.root}: {reason}")


@contextlib.contextmanager
def given(network: Network, maps: Maps, teaching: FeatureCache | None = None) -> Iterator[None]:
    """Let an encoder answer with these maps, where there are some, whatever the image.

    `teaching`: the network is the teacher of a step with this cache.
    """
    if maps is None or (teaching is not None and not teaching.teaches):
        yield
        return
    encoder: Any = network.backbone.encoder
    encoder.forward = lambda _image: list(maps)
    try:
        yield
    finally:
        del encoder.forward


def _read(path: Path, count: int) -> np.ndarray | None:
    """The numbers in a file; None if it is not there, torn or changed."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    numbers, checked = memoryview(content)[:-CHECKED], content[-CHECKED:]
    if len(numbers) != 2 * count or zlib.crc32(numbers).to_bytes(CHECKED, "big") != checked:
        return None
    return np.frombuffer(bytearray(numbers), np.float16)


def _key(loop: "Loop", encoder: Encoder, weights: str) -> str:
    """Hash over all that decides the maps of an image, with the checksum of the encoder's weights."""
    plain = {k: v for k, v in vars(encoder).items() if isinstance(v, bool | int | float | str | list | tuple)}
    device, threads = loop.device, torch.get_num_threads()
    source = [path.read_bytes() for path in sorted(Path(models.__path__[0]).rglob("*.py"))]
    content = {
        "weights": weights,
        "encoder": [repr(encoder), {k: v for k, v in plain.items() if k != "training"}],
        "source": [hashlib.sha256(b"".join(source)).hexdigest(), source_hash(type(loop.network.backbone))],
        "version": 2,  # files of before may be of an encoder that moved
        "normalisation": [part.flatten().tolist() for part in loop.normalisation],
        "precision": [loop.precision.name, loop.settings.channels_last],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} x {threads}",
        "libraries": [version("torch"), version("timm")],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _size(folder: Path) -> float:
    """Bytes of all files in a folder of folders."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(path) / name).stat().st_size
    return float(total)
