"""What a method may decide: the hooks of `Strategy` and `Plugin`. Read this to write your own.

A strategy owns the loss; a run has exactly one. A plugin adds to it; a run may have any number. Annotated class
attributes are hyper-parameters:

    class Mine(Strategy):
        weight: float = 2.0

        def regulariser(self, output, batch, teacher_output):
            return self.weight * distillation(output.logits, teacher_output.logits)

`densecl check mine.py:Mine` tries it; `densecl run --strategy 'mine.py:Mine(weight=3)'` runs it.

A step calls the hooks in this order; `densecl.training.loop` shows it:

    build                                        heads have grown; also where a run goes on, is evaluated or predicts
    before_step, Plugin.before_step              fresh steps only
    param_groups, make_optimizer
    each epoch: train_mode, Plugin.before_epoch
        each batch: prepare_batch, task_loss (pixel_loss), regulariser, Plugin.loss; after_iteration
    after_step, Plugin.after_step                then the step is evaluated and kept, with all state_dicts
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from densecl.models.heads import Heads, TaskHeads
from densecl.models.network import Backbone, Output
from densecl.seeding import derive
from densecl.settings.arguments import resolve
from densecl.streams.samples import SampleKey
from densecl.streams.scenario import Experience
from densecl.streams.stream import Step
from densecl.training.batch import Batch
from densecl.training.by_part import part_groups, set_modes
from densecl.training.loop import Loop
from densecl.training.schedule import make_optimizer

Weight = Annotated[float, Field(ge=0)]  # of a loss term


class _OfLoop:
    """An attribute of the loop, read through the strategy."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, strategy: Any, owner: type) -> Any:
        return self if strategy is None else getattr(strategy.loop, self.name)


class Strategy:
    """Fine-tuning, and the base of every method: each hook has a default, a method overrides what it needs."""

    kinds: ClassVar[frozenset[str]] = frozenset({"segmentation"})  # tasks it can learn
    streams: ClassVar[frozenset[str]] = frozenset({"classes"})  # "tasks": a sequence of them, each with its own head
    # "task": must be told the task at test time; "classes": knows from the first step how many classes will come
    oracle: ClassVar[Literal["task", "classes"] | None] = None
    first_step: ClassVar[Literal["own", "shared"]] = "own"  # "shared": step 0 is plain supervised training
    joint: ClassVar[bool] = False  # train all steps as one, with all labels
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # the values that a hyper-parameter `preset` stands for
    maps: ClassVar[frozenset[str]] = frozenset()  # {"raw"}: outputs hold encoder stages before their last activation
    sigmoid: ClassVar[bool] = False  # True: outputs say yes or no to each label, not one among all
    # labels of replayed samples where these are asked for as published: of the trained step, or of all steps so far
    published_labels: ClassVar[Literal["current", "all"]] = "all"
    # properties of the backbone: "attention", "batchnorm", "nonnegative"
    needs: ClassVar[frozenset[str]] = frozenset()
    whole_batches: ClassVar[bool] = False  # True: a loss term needs all of a batch at once, so no accumulation
    uses_teacher: ClassVar[bool] = True  # False: no teacher's pass although a hook that gets its output is overridden
    # how a part of a batch weighs the supervised term: by its labelled pixels, or by its images
    task_share: Literal["labelled", "images"] = "labelled"

    # at hand in every hook
    network = _OfLoop()  # being trained
    teacher = _OfLoop()  # the frozen network of the previous step, None at step 0
    stream = _OfLoop()  # the steps, their classes and tasks
    scenario = _OfLoop()  # the stream with its data
    task = _OfLoop()  # what the network must output at this step
    settings = _OfLoop()  # of training
    device = _OfLoop()
    seed = _OfLoop()  # of the run
    step = _OfLoop()  # counted from 0
    n_old = _OfLoop()  # outputs that existed before the step, output 0 included
    epoch = _OfLoop()  # done in this step
    iterations = _OfLoop()  # done in this step
    planned = _OfLoop()  # iterations of this step in all
    loop: Loop

    def __init__(self, **values: Any):
        """Set hyper-parameters; UnknownNameError or SettingError for a key or value that does not fit."""
        for key, value in resolve(type(self), Strategy, values, type(self).__name__).items():
            setattr(self, key, value)

    @classmethod
    def overrides(cls, hook: str) -> bool:
        """True if a method has a hook of its own."""
        return getattr(cls, hook) is not getattr(Strategy, hook)

    @classmethod
    def shares_first_step(cls, values: dict[str, Any]) -> bool:
        """True if step 0 is plain supervised training under these hyper-parameters."""
        return cls.first_step == "shared"

    @classmethod
    def backbone_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the backbone that these hyper-parameters decide, whatever the backbone was given."""
        return {}

    # ---- hooks: structure

    def configure(self) -> None:
        """Once a run, before the first step: refuse a network that the method cannot use, or change it."""

    def make_heads(self, channels: int, auxiliary_channels: tuple[int, ...]) -> Heads | TaskHeads:
        """The heads of the network, before the first outputs: one that grows, or one for each step."""
        return (TaskHeads if self.stream.by_task else Heads)(channels, auxiliary_channels)

    def build_head(self, channels: int, outputs: int) -> nn.Module:
        """The new outputs of a step; by default the head that belongs to the backbone, mostly a 1x1 convolution."""
        if self.task.image_level:
            backbone: Backbone = self.network.backbone
            return backbone.build_image_head(channels, outputs, self.task.name, given=self.task.given)
        return self.network.backbone.build_head(channels, outputs)

    def build(self, step: Step) -> None:
        """Once a step, when heads have grown: add structure (branches, masks), and learn nothing.

        Called again for each earlier step where a run goes on, is evaluated or predicts.
        """

    # ---- hooks: training

    def before_step(self, experience: Experience) -> None:
        """Once a fresh step, before the optimiser is made. What it computes must be in the network or `state_dict`."""

    def param_groups(self) -> list[dict[str, Any]]:
        """Groups to train: dictionaries with `params` and, if they differ, `lr` or `lr_scale`, `weight_decay`.

        A `factor`, a function of the step's iterations and the iteration, is what the rate is multiplied by instead of
        the settings' schedule.
        """
        return part_groups(self.network, self.settings, self.step)

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser of a step for what `param_groups` gives: as the settings of training say."""
        return make_optimizer(groups, self.settings, self.step)

    def length_factor(self, step: int) -> float:
        """Factor on the settings' length of a step; 0: nothing is trained by gradients, as where weights are given."""
        return 0.0 if self.stream.tasks[step].given else 1.0

    def train_mode(self) -> None:
        """Before each epoch: training mode, with BatchNorm and dropout as the settings say."""
        self.network.train()
        set_modes(self.network, self.settings, self.step)

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
        """The loss term that holds on to earlier steps; called from step 1 on."""
        return output.logits.new_zeros(())

    def after_iteration(self) -> None:
        """After each step of the optimiser; `iterations` counts it."""

    def after_step(self, experience: Experience) -> None:
        """Once a step, after training, before evaluation and checkpoint; may rewrite weights."""

    # ---- hooks: results

    def predict(self, output: Output) -> Tensor:
        """(B, H, W) labels from an output."""
        return output.logits.max(1).indices  # the first of equal ones, as `argmax`, which takes four times as long

    def class_probabilities(self, logits: Tensor) -> Tensor:
        """(B, classes, *) probabilities of label 1 on, from the logits (B, C, *) of an evaluated network."""
        return logits.sigmoid() if self.sigmoid else logits.softmax(1)[:, 1:]

    def select_task(self, index: int) -> None:
        """Make the network that of a step which has a head of its own; called before its task is evaluated."""
        if self.stream.by_task:
            self.network.task_heads.select(self.stream.tasks[index].name)

    def state_dict(self) -> dict[str, Any]:
        """State to remember between steps, besides the network: tensors, numbers, strings, containers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def stored_bytes(self) -> int:
        """Bytes that the method keeps from earlier steps besides a teacher."""
        return 0

    def model_tensors(self) -> dict[str, Tensor]:
        """All that must be kept to perform every task learnt so far, each value once: what the size column counts."""
        return dict(self.network.state_dict())

    def model_bytes(self) -> int:
        """The same of a sequence of tasks from the counts of numbers alone: one network and its heads."""
        from densecl.strategies.storage import formula_bytes

        return formula_bytes(self.network, "finetune", self.learnt)

    # ---- tools

    def batches(self, purpose: str, passes: int = 1, augment: bool = True, whole: bool = False) -> Iterator[Batch]:
        """Prepared batches of the step, for what is measured before or after training.

        Order and augmentation derive from (seed, step, purpose, pass): nothing else is disturbed. With `augment` they
        are augmented as in training. Each process gets its share, in which copies that do not count (`UNCOUNTED`) are
        left out, so that what is summed over processes counts each image once; with `whole` each gets all of them.
        """
        loop = self.loop
        share = {"rank": 0, "world": 1} if whole else {"least": 1}
        order = loop.order(lambda keys, _epoch, _iteration: [k._replace(augmented=augment) for k in keys], **share)
        loader = loop.load(order)
        for number in range(passes):
            order.set_epoch(derive(self.seed, purpose, self.step, number))
            for batch in loader:
                if int(batch.index[0]) >= 0:
                    yield loop.prepared(batch.to(self.device), self.task)

    @property
    def needs_teacher(self) -> bool:
        """True if any hook looks at the teacher's output; if none does, it is not computed."""
        return self.uses_teacher and any(map(self.overrides, ("regulariser", "prepare_batch", "task_loss")))

    @property
    def learnt(self) -> list[str]:
        """Names of the tasks of the steps up to this one."""
        return [task.name for task in self.stream.tasks[: self.step + 1]]


class Plugin:
    """Adds to a strategy; annotated class attributes are hyper-parameters.

    Callbacks of Avalanche are for its own plugins (`avalanche.training.plugins.SupervisedPlugin`), which a run may name
    as well.
    """

    dense: ClassVar[bool] = True  # ours, not one of Avalanche's
    name: ClassVar[str] = ""  # of its loss term; the recipe's name when empty
    streams: ClassVar[frozenset[str]] = frozenset({"classes"})  # as of `Strategy`
    first_step: ClassVar[Literal["own", "shared"]] = "own"  # "shared": it changes nothing in the training of step 0
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # as of `Strategy`
    needs: ClassVar[frozenset[str]] = frozenset()  # as of `Strategy`: {"attention"}
    needs_teacher: ClassVar[bool] = False  # True if `loss` looks at the teacher's output
    rehearsed: ClassVar[bool] = True  # False: left out of the rehearsal before a run, since it takes long to prepare

    def __init__(self, **values: Any):
        for key, value in resolve(type(self), Plugin, values, type(self).__name__).items():
            setattr(self, key, value)

    def configure(self, strategy: Strategy) -> None:
        """Once a run, before the first step: refuse a strategy or network that it cannot work with."""

    def before_step(self, strategy: Strategy, experience: Experience) -> None:
        """Once a fresh step, after the strategy's, before the optimiser is made: it may freeze parameters."""

    def before_epoch(self, strategy: Strategy) -> None:
        """Before each epoch, also of a step that goes on; the network is in training mode."""

    def extend_keys(self, strategy: Strategy, keys: list[SampleKey], epoch: int, iteration: int) -> list[SampleKey]:
        """Append samples of earlier steps to a batch, or replace some; draw only from `densecl.seeding.generator`."""
        return keys

    def loss(self, strategy: Strategy, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor | None:
        """A term of the loss, None for none."""
        return None

    def after_step(self, strategy: Strategy, experience: Experience) -> None:
        """Once a step, after training, before evaluation and checkpoint; may rewrite weights."""

    def stored_bytes(self, strategy: Strategy) -> int:
        """Bytes it keeps from earlier steps."""
        return 0

    def notes(self, strategy: Strategy) -> dict[str, Any]:
        """Plain values by name for the record of the step."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """State to remember between steps: tensors, numbers, strings, containers of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
