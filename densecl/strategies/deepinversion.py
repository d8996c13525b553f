"""DeepInversion: replay of images of the old classes, synthesised from the previous network alone."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from densecl.data.places import cache_folder
from densecl.errors import DenseCLError, RunError, SettingError
from densecl.inversion import Bank, Inversion, Request, load_bank, open_bank
from densecl.inversion.settings import PUBLISHED, Count, Share, Synthesis, Weight
from densecl.inversion.statistics import matched_layers
from densecl.models.network import Network, Output, middle
from densecl.seeding import derive, generator, seed_torch
from densecl.settings.backbone import build_backbone, check_backbone
from densecl.settings.grammar import parse_one
from densecl.strategies import synthetic
from densecl.strategies.base import Plugin, Strategy
from densecl.streams.scenario import Experience
from densecl.training import distributed, features
from densecl.training.batch import Batch
from densecl.training.plain import train_plainly

# The report of Di Salvo et al. (2021) and its code: DeepInversion's "setting 2", of 20,000 iterations, and plain replay
DISALVO = PUBLISHED | {
    "iterations": 20000,
    "coarse": 0.0,
    "batch": 15,
    "betas": (0.9, 0.999),
    "clip": False,
    "random_beta": True,
    "images_per_class": 32,
    "size": 256,
    "replay_loss": "mse",
    "ratio": 1,
    "bn": "shared",
    "paste": 0.0,
    "shift": 0.0,
}


class DeepInversion(Plugin, Synthesis):
    """Each real image brings a synthetic one, on which the network is held to its teacher.

    Synthesis after Yin et al. (CVPR 2020), on logits pooled by LSE-LBA (Di Salvo et al., 2021). Half of the synthetic
    images are replayed as they are; of the others only the objects, laid on the real images of the batch.
    """

    first_step, rehearsed = "shared", False
    presets: ClassVar[dict[str, dict[str, Any]]] = {"published": PUBLISHED, "disalvo": DISALVO}
    preset: Literal["tuned", "published", "disalvo"] = "tuned"  # what is not given: ours, Yin et al., Di Salvo et al.
    source: Literal["inversion", "noise", "real"] = "inversion"  # controls: uniform noise, real images of old classes
    images_per_class: Count = 20  # images of each old class
    classes_per_image: Count = 1  # at most
    size: Annotated[int, Field(ge=8)] | None = None  # height and width; None: those of the images that a step trains on
    later: Literal["keep", "add", "renew"] = "keep"  # after step 1: those alone, the newest classes' too, or all anew
    # replay
    replay_loss: synthetic.ReplayLoss = "unbiased"
    weight: Weight | None = None  # of the replay loss; None: 10 unbiased, 100 kl, 1 mse and pseudo
    ratio: Count = 1  # replayed images for each real one
    bn: synthetic.BatchNormMode = "frozen"  # statistics that normalise replayed images
    paste: Share = 0.5  # of the replayed images: only their objects are shown, on a real image
    labels: Weight = 0.3  # of the strategy's own loss on the real part of such images
    shift: Share = 0.33  # of height and width, by which replayed images are rolled, at most
    # Adaptive DeepInversion: none, `network` (the one in training, from the middle of a step on), or a backbone that is
    # trained on step 0, such as "bisenet(encoder=resnet18)"
    student: str = "none"
    student_iterations: Count = 300

    def __init__(self, **values: object):
        super().__init__(**values)
        if self.size is not None and (self.paste or self.source == "real"):
            raise SettingError(
                f"deepinversion(size={self.size}, paste={self.paste:g}, source={self.source}): images of another size "
                "than the real ones are replayed beside them",
                "give paste=0, and source=inversion or noise",
            )
        if (self.student != "none") != (self.competition > 0):
            raise SettingError(
                f"deepinversion(student={self.student}, competition={self.competition:g}): a student needs "
                "competition > 0, and competition > 0 a student",
                "give both a student and a weight of the competition, or neither",
            )
        if self.student not in ("none", "network"):
            call = parse_one(self.student, "backbone")
            check_backbone(call.name, call.arguments)
        self._banks: list[dict[str, Any]] = []  # labels, key and hash of each bank that is replayed in `_step`
        self._step = 0
        self._renewed = False  # True if they compete with the network in training
        self._student: dict[str, Tensor] | None = None
        self._pool: synthetic.Pool | None = None

    # ---- hooks

    def configure(self, strategy: Strategy) -> None:
        """Refuse a backbone without statistics of its data, and a strategy whose outputs are no softmax."""
        if self.source == "inversion":
            backbone = strategy.network.backbone  # a decoder's statistics alone say little of an image
            matched_layers(getattr(backbone, "encoder", backbone))
        if strategy.sigmoid:
            name = type(strategy).__name__.lower()
            raise SettingError(
                f"deepinversion needs a softmax over background and classes, and {name} has none", "use mib"
            )

    def before_epoch(self, strategy: Strategy) -> None:
        """Make or load the images: at the start of a step, and where a killed one goes on."""
        if strategy.step == 0:
            return
        middle = self.student == "network" and not self._renewed and 2 * strategy.epoch >= strategy.loop.epochs
        if self._step != strategy.step:
            self._banks, self._step, self._renewed, self._pool = self._wanted(strategy), strategy.step, False, None
        elif middle:
            self._student = copy.deepcopy(strategy.network.state_dict())
            self._banks, self._renewed, self._pool = self._wanted(strategy, anew=True), True, None
        if self._pool is None:
            images = torch.cat([self._images(strategy, bank) for bank in self._banks]).to(strategy.device)
            objects = synthetic.find_objects(images, strategy.teacher, *strategy.loop.normalisation)
            self._pool = synthetic.Pool(images, objects)

    def loss(self, strategy: Strategy, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor | None:
        """The replay loss of as many images as the batch has, times `ratio`."""
        if self._pool is None or strategy.step == 0 or strategy.teacher is None:
            return None
        index = batch.index.repeat(self.ratio)
        copies = torch.arange(self.ratio, device=index.device).repeat_interleave(len(batch.index))
        place = derive(strategy.seed, "replayed", strategy.step, strategy.iterations) >> 22
        numbers = synthetic.scramble(index + (copies << 40) + place)
        drawn = synthetic.draw(self._pool, numbers, self.shift, *strategy.loop.normalisation)
        images, part, share, stride = drawn.images, batch, torch.zeros(()), strategy.settings.loss_stride
        if self.paste:
            seen = synthetic.real_part(drawn, numbers, self.paste)
            part, share = synthetic.visible_labels(batch, middle(seen, stride))
            images = torch.where(seen, part.image, images)
        autocast = strategy.loop.precision.autocast
        with torch.no_grad(), autocast():
            maps = features.shared(strategy.loop, images) if self.bn == "frozen" else None
            with features.given(strategy.teacher, maps):
                teacher_logits = strategy.teacher(images, stride).logits
        with synthetic.replay_mode(strategy.network, self.bn), autocast(), features.given(strategy.network, maps):
            logits = strategy.network(images, stride).logits.float()
        weight = synthetic.WEIGHTS[self.replay_loss] if self.weight is None else self.weight
        loss = weight * synthetic.replay_loss(logits, teacher_logits.float(), self.replay_loss)
        if self.paste and self.labels:
            loss = loss + self.labels * share * strategy.pixel_loss(logits, part)
        return loss

    def after_step(self, strategy: Strategy, experience: Experience) -> None:
        """Train the student of Adaptive DeepInversion beside step 0; later drop the images from memory."""
        self._pool = None
        if experience.step == 0 and self.student not in ("none", "network"):
            network, length = self._small(strategy), self.student_iterations
            train_plainly(network, strategy.scenario, strategy.settings, length, strategy.seed, strategy.device)
            self._student = {name: tensor.cpu() for name, tensor in network.state_dict().items()}

    def stored_bytes(self, strategy: Strategy) -> int:
        """The images, the student, and the teacher where the strategy itself has none."""
        tensors = list((self._student or {}).values())
        if not strategy.loop.needs_teacher:
            tensors += strategy.network.parameters()
        return sum(bank["bytes"] for bank in self._banks) + sum(t.numel() * t.element_size() for t in tensors)

    def notes(self, strategy: Strategy) -> dict[str, Any]:
        """The banks replayed in this step: their classes, keys, hashes and figures."""
        return {"banks": self._banks} if self._banks else {}

    def state_dict(self) -> dict[str, Any]:
        """Names of the banks, and the student; the images themselves lie in the user's cache."""
        return {"banks": self._banks, "step": self._step, "renewed": self._renewed, "student": self._student}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._banks, self._step, self._renewed = list(state["banks"]), state["step"], state["renewed"]
        self._student, self._pool = state["student"], None

    # ---- the images

    def _wanted(self, strategy: Strategy, anew: bool = False) -> list[dict[str, Any]]:
        """The banks of a step; `_images` adds key, hash and quality once they are made."""
        step, old = strategy.step, list(range(1, strategy.n_old))
        if step == 1 or anew or self.later == "renew" or not self._banks:
            return [{"labels": old, "step": step}]
        if self.later == "keep":
            return self._banks
        banked = {label for bank in self._banks for label in bank["labels"]}
        newest = [label for label in old if label not in banked]
        return [*self._banks, *([{"labels": newest, "step": step}] if newest else [])]

    def _images(self, strategy: Strategy, bank: dict[str, Any]) -> Tensor:
        """(N, 3, H, W) uint8 of one bank, on the CPU; adds to it key, hash, quality and bytes."""
        if self.source == "noise":
            rng = generator(strategy.seed, "noise images", *bank["labels"])
            shape = (len(bank["labels"]) * self.images_per_class, 3, *self._size(strategy, strategy.step))
            images = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
        elif self.source == "real":
            images = self._real(strategy, bank["labels"])
        else:
            devices = [strategy.device] if strategy.device.type == "cuda" else []
            # what an epoch draws must not depend on whether a bank had to be made again
            with distributed.first_on_each_host(), torch.random.fork_rng(devices, enabled="key" in bank):
                opened = self._open(strategy, bank)
            images = opened.images
            if bank.get("hash") != opened.hash:
                if "hash" in bank:  # of an earlier step, and they could not be made again to the same bits
                    bank["replaced"] = [*bank.get("replaced", []), strategy.step]
                    _say(strategy)(f"the images of step {bank['step']} are others from step {strategy.step} on")
                bank |= {"key": opened.key, "hash": opened.hash, "quality": opened.quality.as_dict()}
        bank["bytes"] = images.numel()
        return images

    def _open(self, strategy: Strategy, bank: dict[str, Any]) -> Bank:
        """The synthetic images of a bank: those of an earlier step by their key, else by what they are made from.

        Where the cache has lost them they are made again, from the network that they were made from: the run keeps it.
        """
        root, say = cache_folder() / "banks", _say(strategy)
        if "key" in bank:
            saved = load_bank(root / bank["key"], bank["hash"], say)
            if saved is not None:
                return saved
        teacher, competes = strategy.teacher, self._renewed
        if bank["step"] != strategy.step:
            competes = bank.get("renewed", False)
            try:
                teacher = self._earlier(strategy, bank["step"] - 1)
            except DenseCLError as error:
                say(f"refused: {error}; images of step {bank['step']} are synthesised from the present teacher")
        elif competes:
            bank["renewed"] = True
        labels, precision = tuple(bank["labels"]), strategy.loop.precision.name
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(Synthesis)}
        if self.student == "network" and not competes:
            values["competition"] = 0.0  # at the start of a step it is the teacher itself
        settings = Inversion(**values, precision=precision)  # type: ignore[arg-type]
        seed, size = derive(strategy.seed, "deepinversion", *labels), self._size(strategy, bank["step"])
        mean, std = strategy.scenario.normalisation
        request = Request(labels, self.images_per_class, self.classes_per_image, size, seed, mean, std, settings)
        student = self._competitor(strategy, bank["step"], competes)
        watch = getattr(strategy.loop.events, "scan", None)
        return open_bank(root, request, teacher, student=student, device=strategy.device, say=say, watch=watch)

    def _earlier(self, strategy: Strategy, step: int) -> Network:
        """The network after an earlier step, as the run has kept it; a DenseCLError where it has not."""
        if strategy.loop.kept is None:
            raise RunError(f"the network after step {step} is not kept")
        return strategy.loop.kept(step).eval().requires_grad_(False)

    def _competitor(self, strategy: Strategy, step: int, competes: bool) -> Network | None:
        """The student of the banks of a step; the network in training has the structure of that step."""
        if self._student is None or (self.student == "network" and not competes):
            return None
        if self.student != "network":
            network = self._small(strategy)
        else:
            network = copy.deepcopy(strategy.network) if step == strategy.step else self._earlier(strategy, step)
        network.load_state_dict(self._student)
        return network.to(strategy.device)

    def _small(self, strategy: Strategy) -> Network:
        """A student with the outputs of step 0."""
        call = parse_one(self.student, "backbone")
        seed_torch(strategy.seed, "student")
        network = Network(build_backbone(call.name, call.arguments))
        network.grow(strategy.scenario.experiences[0].n_outputs)
        return network

    def _real(self, strategy: Strategy, labels: list[int]) -> Tensor:
        """Images of earlier steps in which a class is labelled, without their labels."""
        mean, std = strategy.scenario.normalisation
        images = []
        for experience in strategy.scenario.experiences[: strategy.step]:
            for label in (label for label in experience.new_classes if label in labels):
                positions = np.flatnonzero(experience.presence[:, label])
                rng = generator(strategy.seed, "real images", label)
                chosen = rng.permutation(positions)[: self.images_per_class].tolist()
                images += [experience.dataset[position][0] * std + mean for position in chosen]
        return (torch.stack(images) * 255).round().clamp(0, 255).to(torch.uint8)

    def _size(self, strategy: Strategy, step: int) -> tuple[int, int]:
        """(height, width) of the images: as asked for, or of those that a step trains on."""
        if self.size is not None:
            return self.size, self.size
        height, width = strategy.scenario.experiences[step].dataset[0][0].shape[-2:]
        return height, width


def _say(strategy: Strategy) -> Callable[[str], None]:
    """Tell a person; without a listener, nobody."""
    return getattr(strategy.loop.events, "line", lambda _text: None)
