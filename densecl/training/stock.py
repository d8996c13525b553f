"""Stock plugins of Avalanche on our loop: refusals of those that need labelled images, callbacks, attributes.

A plugin of `avalanche.training.plugins` is either in `WORKING` or refused when a run is planned. A class of a user on
Avalanche's callbacks (a subclass of `SupervisedPlugin`) is called as well.
"""

from collections.abc import Sequence
from functools import cached_property
from operator import attrgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from densecl.errors import DenseCLError, RunError, SettingError, first_line
from densecl.metrics import ConfusionMatrix
from densecl.training.batch import unkeyed

if TYPE_CHECKING:
    from densecl.training.loop import Loop

METRIC, STREAM = "mIoU", "validation"  # of the evaluation after each epoch
EARLY = "EarlyStoppingPlugin"
SI = "SynapticIntelligencePlugin"
WORKING = frozenset({"AGEMPlugin", EARLY, "EWCPlugin", "GEMPlugin", "MASPlugin", SI})
INSTEAD = {
    "LwFPlugin": "it takes one label an image; use the strategy lwf",
    "ReplayPlugin": "it takes one label an image; use +replay",
    "GDumbPlugin": "it takes one label an image; use +replay",
    "BiCPlugin": "it takes one label an image",
    "MIRPlugin": "it takes one label an image; use +replay",
    "LFLPlugin": "it needs a network with one feature vector an image; use the strategy ilt",
    "RWalkPlugin": "it fails at its first checkpoint; use +ewc or SynapticIntelligencePlugin",
    "LRSchedulerPlugin": "a step makes its optimiser anew; use training.power and training.warmup, or a `factor` of "
    "`param_groups`",
    "GenerativeReplayPlugin": "it needs a generator of labelled images; use +deepinversion",
    "TrainGeneratorAfterExpPlugin": "it needs a generator of labelled images; use +deepinversion",
}


def check_stock(name: str, cls: type, values: dict[str, Any], validation: float) -> None:
    """SettingError where a stock plugin does not work on dense targets, with what to use instead.

    `name` is as the user wrote it, `values` are its arguments, `validation` is the share of held-out training images.
    """
    if not cls.__module__.startswith("avalanche."):
        return
    if cls.__name__ not in WORKING:
        working = ", ".join(sorted(WORKING))
        reason = INSTEAD.get(cls.__name__, "it was not tried on dense targets")
        raise SettingError(f"{name}: Avalanche's {cls.__name__} does not work here: {reason}", f"these do: {working}")
    if cls.__name__ == EARLY:
        if (values.get("metric_name"), values.get("val_stream_name")) != (METRIC, STREAM):
            raise SettingError(
                f"{name} must watch the mean IoU of held-out training images",
                f"give it metric_name={METRIC} and val_stream_name={STREAM}",
            )
        if not validation:
            raise SettingError(f"{name} needs held-out training images to look at", "add --validation 0.1")


class Logits(nn.Module):
    """A network whose output is its logits, (B, C, H, W)."""

    def __init__(self, loop: "Loop"):
        super().__init__()
        self.loop, self.network = loop, loop.network

    def train(self, mode: bool = True) -> "Logits":
        """Training mode as the loop has it: a plugin that asks for it in an epoch wakes nothing that is frozen."""
        super().train(mode)
        if mode:
            self.loop.train_mode()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Logits of normalised images (B, 3, H, W)."""
        return self.network(image).logits.float()


class StockPlugins:
    """Calls the callbacks of stock plugins; stands for Avalanche's strategy, whose attributes they read."""

    is_training = True

    def __init__(self, loop: "Loop", plugins: Sequence[Any]):
        self.loop, self.plugins = loop, list(plugins)
        self.watched = any(type(plugin).__name__ == EARLY for plugin in plugins)
        self.evaluator = SimpleNamespace(get_last_metrics=lambda: dict(self.scores))
        self.scores: dict[str, float] = {}

    def call(self, callback: str) -> None:
        """Call a callback of each plugin; RunError if one fails."""
        if callback == "before_training_exp":
            vars(self).pop("experience", None)
        for plugin in self.plugins:
            try:
                getattr(plugin, callback)(self)
            except DenseCLError:
                raise
            except Exception as error:
                place = f"{callback} at step {self.loop.step}"
                raise RunError(
                    f"the stock plugin {type(plugin).__name__} failed in {place}: {first_line(error)}",
                    "leave it out, or use one of densecl's own (densecl list strategies)",
                ) from error
            if type(plugin).__name__ == SI and callback in ("before_training_exp", "before_training_iteration"):
                _own_copies(plugin)
        if callback == "after_training_epoch" and self.watched:
            self.scores = {f"{METRIC}/eval_phase/{STREAM}": held_out_miou(self.loop)}

    # ---- attributes that plugins read

    @cached_property
    def experience(self) -> Any:
        """The experience in training, as Avalanche has it."""
        from densecl.streams.containers import DenseExperience

        return DenseExperience(self.loop.experience)

    @property
    def model(self) -> Logits:
        """The network in training, whose output is its logits."""
        return Logits(self.loop)

    @property
    def clock(self) -> SimpleNamespace:
        """Avalanche's counters of steps, epochs and iterations."""
        loop = self.loop
        return SimpleNamespace(
            train_exp_counter=loop.step,
            train_exp_epochs=loop.epoch,
            train_exp_iterations=loop.iterations,
            train_epoch_iterations=loop.iterations - loop.epoch * len(loop.batches),
        )

    @property
    def mbatch(self) -> list[Tensor]:
        """Normalised images (B, 3, H, W), targets, and the task label 0 of each."""
        return [self.mb_x, self.mb_y, self.mb_task_id]

    mb_x = property(attrgetter("loop.batch.image"))  # (B, 3, H, W), normalised
    mb_y = property(attrgetter("loop.batch.target"))  # labels of segmentation are (B, H, W) int64
    mb_output = property(attrgetter("loop.output.logits"))  # (B, C, H, W)
    loss: Any = property(attrgetter("loop.loss"), lambda self, value: setattr(self.loop, "loss", value))
    optimizer = property(attrgetter("loop.optimizer"))
    device = property(attrgetter("loop.device"))
    dataloader = property(attrgetter("loop.loader"))
    train_mb_size = property(attrgetter("loop.settings.batch"))
    train_epochs = property(attrgetter("loop.epochs"))

    @property
    def mb_task_id(self) -> Tensor:
        """(B,) zeros."""
        return torch.zeros_like(self.loop.batch.index)

    def _criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.loop.task.loss(logits, unkeyed(logits, target))

    def stop_training(self) -> None:
        """End the step before its next epoch."""
        self.loop.stopped = True


@torch.no_grad()
def held_out_miou(loop: "Loop") -> float:
    """Mean IoU of the step's head on held-out training images, over the labels that it has outputs for."""
    network, samples, n = loop.network, loop.scenario.tests_of(loop.step), loop.network.n_outputs
    training = network.training
    network.eval()
    confusion = ConfusionMatrix(n)
    for sample in DataLoader(samples, batch_size=None):  # one image at a time: they may differ in size
        batch = loop.prepared(unkeyed(sample.image[None], sample.target[None]).to(loop.device), loop.task)
        target = torch.where(batch.target < n, batch.target, 255)  # classes to come
        confusion.update(loop.strategy.predict(network(batch.image)), target)
    network.train(training)
    return float(confusion.iou().nanmean())


def _own_copies(plugin: Any) -> None:
    """Copy the plugin's weights: on a CPU Avalanche 0.6 keeps views of the live ones, so that no path is measured."""
    for weights in (plugin.ewc_data[0], plugin.syn_data["old_theta"]):
        for parameter in weights.values():
            parameter.data = parameter.data.clone()
