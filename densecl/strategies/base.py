"""What a method may decide: the hooks of `Strategy` and `Plugin`. Read this to write your own.

A strategy owns the loss; a run has exactly one. A plugin adds to it; a run may have any number. Annotated class
attributes are hyper-parameters:

    class Mine(Strategy):
        weight: float = 2.0

        def regulariser(self, output, batch, teacher_output):
            return self.weight * distillation(output.logits, teacher_output.logits)

`densecl check mine.py:Mine` tries it; `densecl run --strategy 'mine.py:Mine(weight=3)'` runs it.
"""

import warnings
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from densecl.models.network import Output
from densecl.seeding import derive
from densecl.settings.arguments import resolve
from densecl.strategies.storage import formula_bytes
from densecl.streams.samples import SampleKey
from densecl.streams.scenario import DenseExperience
from densecl.training.batch import Batch
from densecl.training.loop import Loop
from densecl.training.schedule import make_optimizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from avalanche.core import SupervisedPlugin


class Strategy(Loop):
    """Fine-tuning, and the base of every method: each hook has a default, a method overrides what it needs.

    At hand in every hook: `network`, `teacher` (the frozen network of the previous step, None at step 0), `step`,
    `n_old` (outputs that existed before the step, output 0 included), `scenario`, `settings`, `device`.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"segmentation"})  # tasks it can learn
    streams: ClassVar[frozenset[str]] = frozenset({"classes"})  # "tasks": a sequence of them, each with its own head
    oracle: ClassVar[Literal["task"] | None] = None  # "task": must be told the task at test time
    first_step: ClassVar[Literal["own", "shared"]] = "own"  # "shared": step 0 is plain supervised training
    joint: ClassVar[bool] = False  # train all steps as one, with all labels
    compiled_hooks: ClassVar[tuple[str, ...]] = ("task_loss", "regulariser")  # by `training.compile`, on a GPU

    def configure(self, values: dict[str, Any]) -> None:
        """Set hyper-parameters.

        Raises:
            UnknownNameError, SettingError: for a key or value that does not fit.
        """
        for key, value in resolve(type(self), Strategy, values, type(self).__name__).items():
            setattr(self, key, value)

    @classmethod
    def shares_first_step(cls, values: dict[str, Any]) -> bool:
        """Whether step 0 is plain supervised training under these hyper-parameters."""
        return cls.first_step == "shared"

    # ---- hooks

    def before_step(self, experience: DenseExperience) -> None:
        """Once a step, when the network has grown; teacher and loader are at hand."""

    def param_groups(self) -> list[dict[str, Any]]:
        """What is trained: dictionaries with `params` and, if they differ, `lr` or `lr_scale`, `weight_decay`.

        A `factor`, a function of the step's iterations and the iteration, is what the rate is multiplied by instead of
        the settings' schedule.
        """
        return [{"params": [p for p in self.network.parameters() if p.requires_grad]}]

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser of a step for what `param_groups` gives: as the settings of training say."""
        return make_optimizer(groups, self.settings, self.step)

    def longer(self, step: int) -> float:
        """How many times the settings' epochs or iterations a step takes; for methods that train in two phases."""
        return 1.0

    def train_mode(self) -> None:
        """Before each epoch: training mode, with BatchNorm's statistics fixed after step 0 when the setting says so."""
        self.network.train()
        if self.settings.batchnorm == "frozen" and self.step > 0:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def prepare_batch(self, batch: Batch, teacher_output: Output | None) -> Batch:
        """Change targets or weights, such as for pseudo-labels; never the image. The targets must be copied."""
        return batch

    def pixel_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The supervised loss of one map of logits (B, C, H, W): that of the task, cross-entropy for segmentation."""
        return self.task.loss(logits, batch)

    def task_loss(self, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor:
        """The supervised loss: `pixel_loss` of the logits and of each auxiliary output, summed."""
        loss = self.pixel_loss(output.logits, batch)
        for logits in output.auxiliary:
            loss = loss + self.pixel_loss(logits, batch)
        return loss

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """What holds on to earlier steps; called from step 1 on."""
        return output.logits.new_zeros(())

    def after_step(self, experience: DenseExperience) -> None:
        """Once a step, after training, before evaluation and checkpoint; may rewrite weights."""

    def predict(self, output: Output) -> Tensor:
        """(B, H, W) labels from an output."""
        return output.logits.argmax(1)

    def select_task(self, index: int) -> None:
        """Let the network be that of a task of the sequence; called before a task is evaluated.

        Raises:
            UnknownNameError: the task was never learnt.
        """
        self.network.task_heads.select(self.scenario.tasks[index].name)

    def build_head(self, channels: int, outputs: int) -> nn.Module:
        """The new outputs of a step; by default the head that belongs to the backbone, mostly a 1x1 convolution."""
        return self.network.backbone.build_head(channels, outputs)

    def state_dict(self) -> dict[str, Any]:
        """What the method must remember between steps, besides the network: tensors, numbers, strings, containers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def stored_bytes(self) -> int:
        """Bytes kept from earlier steps to learn the next: the teacher where one is used, and what plugins keep."""
        teacher = sum(p.numel() * p.element_size() for p in self.network.parameters()) if self.needs_teacher else 0
        return teacher + sum(plugin.stored_bytes(self) for plugin in self.dense_plugins)

    def notes(self) -> dict[str, Any]:
        """What plugins want in the record of the step, by name."""
        found = {plugin.name: plugin.notes(self) for plugin in self.dense_plugins}
        return {name: notes for name, notes in found.items() if notes}

    def model_tensors(self) -> dict[str, Tensor]:
        """All that must be kept to perform every task learnt so far, each value once: what the size column counts."""
        return dict(self.network.state_dict())

    def model_bytes(self) -> int:
        """The same of a sequence of tasks from the counts of numbers alone: one network and its heads."""
        return formula_bytes(self.network, "finetune", self.learnt)

    @property
    def learnt(self) -> list[str]:
        """Names of the tasks of the steps up to this one."""
        return [task.name for task in self.scenario.tasks[: self.step + 1]]

    def method_state(self) -> dict[str, Any]:
        """What strategy and plugins must remember, by name."""
        frozen = [name for name, p in self.network.named_parameters() if not p.requires_grad]
        plugins = {f"plugin:{plugin.name}": plugin.state_dict() for plugin in self.dense_plugins}
        return {"strategy": self.state_dict(), "frozen": frozen, **plugins}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Restore what `method_state` returned, on the device of this run."""
        state = on_device(state, self.device)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name not in state.get("frozen", ()))
        self.load_state_dict(state["strategy"])
        for plugin in self.dense_plugins:
            plugin.load_state_dict(state[f"plugin:{plugin.name}"])

    # ---- how the loop calls them

    @property
    def dense_plugins(self) -> list["Plugin"]:
        """Our own plugins, without the stock ones of Avalanche."""
        return [plugin for plugin in self.plugins if isinstance(plugin, Plugin)]

    @property
    def changes_targets(self) -> bool:
        """Whether the method prepares batches of its own."""
        return type(self).prepare_batch is not Strategy.prepare_batch

    @property
    def needs_teacher(self) -> bool:
        """Whether any hook looks at the teacher's output; if none does, it is not computed."""
        overrides = any(
            getattr(type(self), hook) is not getattr(Strategy, hook)
            for hook in ("regulariser", "prepare_batch", "task_loss")
        )
        return overrides or any(plugin.needs_teacher for plugin in self.dense_plugins)

    @property
    def term_names(self) -> list[str]:
        """Names that terms of the loss may have, in their order."""
        return ["task", "regulariser", *(plugin.name for plugin in self.dense_plugins)]

    def loss_parts(self, output: Output, batch: Batch, teacher_output: Output | None) -> dict[str, Tensor]:
        """The named terms of the loss: `task`, `regulariser`, and each plugin's own."""
        terms = {"task": self.task_loss(output, batch, teacher_output)}
        if teacher_output is not None and type(self).regulariser is not Strategy.regulariser:
            terms["regulariser"] = self.regulariser(output, batch, teacher_output)
        for plugin in self.dense_plugins:
            term = plugin.loss(self, output, batch, teacher_output)
            if term is not None:
                terms[plugin.name] = term
        return terms

    def extend_keys(self, keys: list[SampleKey], epoch: int, iteration: int) -> list[SampleKey]:
        """The samples of a batch, with what plugins append."""
        for plugin in self.dense_plugins:
            keys = plugin.extend_keys(self, keys, epoch, iteration)
        return keys

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """As the loop's, then each plugin's `before_step`."""
        resumed = self._resumed is not None  # then the effect of `before_step` is in the state
        super().check_model_and_optimizer(**kwargs)
        for plugin in () if resumed else self.dense_plugins:
            plugin.before_step(self, self._experience())

    def finish_step(self, experience: DenseExperience) -> None:
        """What follows training, and also a first step that was loaded: `after_step` of strategy and plugins."""
        torch.manual_seed(derive(self.seed, "after", experience.step))
        self.after_step(experience)
        for plugin in self.dense_plugins:
            plugin.after_step(self, experience)


class Plugin(SupervisedPlugin, supports_distributed=True):
    """Adds to a strategy; annotated class attributes are hyper-parameters. Avalanche's callbacks work as well."""

    dense: ClassVar[bool] = True  # ours, not one of Avalanche's
    name: ClassVar[str] = ""  # of its loss term; the recipe's name when empty
    streams: ClassVar[frozenset[str]] = frozenset({"classes"})  # as of `Strategy`
    first_step: ClassVar[Literal["own", "shared"]] = "own"  # "shared": it changes nothing in the training of step 0
    needs_teacher: ClassVar[bool] = False  # whether `loss` looks at the teacher's output

    def __init_subclass__(cls, supports_distributed: bool = True, **keywords: Any):
        super().__init_subclass__(supports_distributed=supports_distributed, **keywords)  # Avalanche's default is False

    def __init__(self, **values: Any):
        super().__init__()
        for key, value in resolve(type(self), Plugin, values, type(self).__name__).items():
            setattr(self, key, value)

    # ---- hooks

    def before_step(self, strategy: Strategy, experience: DenseExperience) -> None:
        """Once a step, when the network has grown and the optimiser is made."""

    def extend_keys(self, strategy: Strategy, keys: list[SampleKey], epoch: int, iteration: int) -> list[SampleKey]:
        """Append samples of earlier steps to a batch; draw only from `densecl.seeding.generator`."""
        return keys

    def loss(self, strategy: Strategy, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor | None:
        """A term of the loss, None for none."""
        return None

    def after_step(self, strategy: Strategy, experience: DenseExperience) -> None:
        """Once a step, after training, before evaluation and checkpoint."""

    def stored_bytes(self, strategy: Strategy) -> int:
        """Bytes it keeps from earlier steps."""
        return 0

    def notes(self, strategy: Strategy) -> dict[str, Any]:
        """What the record of the step shall hold of it: plain values by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What it must remember between steps: tensors, numbers, strings, containers of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def on_device(value: Any, device: torch.device) -> Any:
    """Tensors of nested containers moved to a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: on_device(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_device(item, device) for item in value)
    return value
