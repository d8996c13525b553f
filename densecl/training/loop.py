"""The training loop: all of it, in the order in which it runs.

    for each step:
        begin       the network of the step before becomes the teacher; heads and structure grow; the method prepares
                    (or a killed step is restored); optimiser, schedule and loader are made anew
        each epoch: each batch: parts of the batch -> loss terms -> gradients; then one step of the optimiser
                    checkpoint
        finish      the method and its plugins conclude

A batch is learnt in one part unless `training.accumulation` asks for more. `densecl.strategies.base` says what a method
may decide at which point. Stock plugins of Avalanche hear their callbacks from `tell`.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from densecl.models.network import Network, Output
from densecl.seeding import seed_torch
from densecl.settings.recipe import TrainingSettings
from densecl.streams.samples import SampleKey
from densecl.streams.scenario import Experience, Normalisation, Scenario
from densecl.streams.stream import Step, Stream
from densecl.tasks import Task
from densecl.training import distributed, features, state
from densecl.training.batch import Batch, labelled_share, normalise, sizes, split, thinned
from densecl.training.guards import LossGuard, check_weights
from densecl.training.loader import EpochBatches, Extend, make_loader, step_length
from densecl.training.parts import check_parts
from densecl.training.precision import Precision, compiled, make_deterministic, widened
from densecl.training.schedule import make_schedule

if TYPE_CHECKING:
    from densecl.strategies.base import Plugin, Strategy


class Events(Protocol):
    """Hears how training goes; `iteration` is called once an iteration, so it must be quick."""

    def step_started(self, step: int, epochs: int, iterations: int, batches: int, done: int) -> None:
        """A step begins: of so many epochs and iterations, batches an epoch, iterations done before a kill."""

    def iteration(
        self, epoch: int, iteration: int, loss_terms: dict[str, Tensor], samples: int, rates: Sequence[float]
    ) -> None:
        """An iteration is done, with these learning rates; reading a loss may wait for the device."""

    def epoch_finished(self, epoch: int, iteration: int, loss_terms: dict[str, Tensor]) -> None:
        """An epoch is done, and the device was waited for."""


class Loop:
    """Trains a network on one step after another, as a strategy and its plugins say.

    Attributes:
        strategy, plugins: the method. network: being trained. stream: its steps. scenario: the stream with its data;
            None where nothing is trained. settings: of training. seed: of the run.
        teacher: the frozen network of the previous step, None at step 0.
        step: counted from 0, -1 before the first. n_old: outputs that existed before it, output 0 included.
        epoch, iterations: done in this step. epochs, planned: those it has in all.
        loss_terms: of the last batch. after_epoch: called at the end of each epoch, to keep a checkpoint.
        kept: gives the network after an earlier step again, as its weights were kept; None where they are not.
    """

    def __init__(
        self,
        strategy: "Strategy",
        network: Network,
        stream: Stream,
        normalisation: Normalisation,
        settings: TrainingSettings,
        *,
        scenario: Scenario | None = None,
        plugins: Sequence[Any] = (),
        seed: int = 0,
        device: torch.device | str = "cpu",
        workers: int = 0,
        events: Events | None = None,
        cache_gib: float = 0.0,
    ):
        self.strategy, self.network, self.stream, self._scenario = strategy, network, stream, scenario
        self.settings, self.seed, self.workers, self.events = settings, seed, workers, events
        self.device = torch.device(device)
        self.compiles_losses = self.device.type != "cpu"  # there their own passes are faster than compiled ones
        self.plugins: list[Plugin] = [plugin for plugin in plugins if getattr(plugin, "dense", False)]
        stock = [plugin for plugin in plugins if not getattr(plugin, "dense", False)]
        self.precision = Precision(settings.precision, self.device)
        self.normalisation = Normalisation(*(part.to(device) for part in normalisation))
        self.teacher: Network | None = None
        self.loss_terms: dict[str, Tensor] = {}
        self.step, self.n_old, self.epoch, self.iterations, self.epochs, self.planned = -1, 0, 0, 0, 0, 0
        self.after_epoch: Callable[[], None] | None = None
        self.kept: Callable[[int], Network] | None = None
        self.stopped, self.stock, self.cache_gib = False, None, cache_gib
        self._resumed: dict[str, Any] | None = None
        self.features: features.FeatureCache | None = None
        self._forward: Callable[[Tensor, int], Output] = network
        if settings.deterministic:
            make_deterministic()
        check_parts(settings, stock, stream.tasks, type(strategy), self.device)
        strategy.loop = self
        strategy.configure()
        network.backbone.require(strategy.needs)
        network.collect(strategy.maps)
        features.check(network.backbone, settings)
        for plugin in self.plugins:
            network.backbone.require(plugin.needs)
            plugin.configure(strategy)
        if not network.n_outputs:  # else it has grown before
            network.make_heads(strategy.make_heads)  # type: ignore[arg-type]
        if stock:
            from densecl.training.stock import StockPlugins

            self.stock = StockPlugins(self, stock)

    # ---- the loop

    def train(self, experiences: Iterable[Experience]) -> None:
        """Train the network on one step after another."""
        for experience in experiences:
            self.begin(experience)
            while self.epoch < self.epochs:
                self.begin_epoch()
                if self.stopped:
                    break
                for batch in self.loader:
                    self.update(batch)
                self.end_epoch()
            self.finish(experience)
            self.loader = ()  # else its workers wait for the collector, and then for seconds each

    def begin(self, experience: Experience) -> None:
        """Begin a step, or go on with one that was killed."""
        self.enter(experience)
        self.experience, self.stopped = experience, False
        (self.epochs, self.planned), self.epoch, self.iterations = self.length(experience), 0, 0
        self.guard = LossGuard(self.precision.scaler is not None)
        saved, self._resumed = self._resumed, None
        if saved is None:
            self.strategy.before_step(experience)
            self.features = features.begin(self)
            for plugin in self.plugins:
                plugin.before_step(self.strategy, experience)
        else:  # the effect of `before_step` is in the state, and what is frozen decides what the optimiser holds
            self.features = features.begin(self)
            self.load_method_state(saved["method"])
        groups = self.strategy.param_groups()
        factors = [group.pop("factor", None) for group in groups]  # functions: no part of a state
        self.optimizer = self.strategy.make_optimizer(groups)
        self.schedule = make_schedule(self.optimizer, self.settings, self.planned, factors)
        if saved is not None:
            state.restore(self, saved)
        self._class_weights: Tensor | None = None
        if self.settings.class_weights and self.task.kind == "segmentation":
            from densecl.training.class_weights import of_step

            self._class_weights = of_step(self, experience)
        least, drop_last = distributed.least_share(self.device), self.settings.drop_last
        self.batches = self.order(self._extended, least=least, drop_last=drop_last)
        self.loader = self.load(self.batches)
        self.tell("before_training_exp")
        if self.events:
            self.events.step_started(self.step, self.epochs, self.planned, len(self.batches), self.iterations)

    def enter(self, step: Step) -> None:
        """Make the network that of a step: the one as it is becomes the teacher, then heads and structure grow.

        Nothing is learnt here, so steps are entered again where a run goes on, is evaluated or predicts.
        """
        network, by_task = self.network, self.stream.by_task
        if network.n_outputs and (self.needs_teacher or not by_task):
            self.teacher = copy.deepcopy(network).eval().requires_grad_(False)
        self.step, self.n_old = step.step, 0 if by_task else network.n_outputs
        if by_task:
            network.task_heads.begin(step.task.name)
        seed_torch(self.seed, "head", self.step)
        network.grow(step.n_outputs - self.n_old, self.strategy.build_head)
        if distributed.syncs_batchnorm(self.device):
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
        network.to(self.device)
        if self.settings.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._forward = network
        if self.settings.compile:
            self._forward = compiled(self.network, self.strategy, losses=self.compiles_losses)
        self.strategy.build(step)
        network.to(self.device)

    def begin_epoch(self) -> None:
        """Seed and order the epoch, and put the network into training mode."""
        process = (distributed.rank(),) if distributed.rank() else ()  # dropout must not be the same in all processes
        seed_torch(self.seed, "epoch", self.step, self.epoch, *process)
        self.batches.set_epoch(self.epoch, self.planned - self.iterations)
        self.train_mode()
        for plugin in self.plugins:
            plugin.before_epoch(self.strategy)
        self.tell("before_training_epoch")

    def train_mode(self) -> None:
        """Put the network into training mode, but for what is frozen."""
        self.strategy.train_mode()
        features.settle(self)

    def update(self, batch: Batch) -> None:
        """Learn from one batch: the gradients of its parts, then one step of the optimiser."""
        loaded, batch = batch.image, self.prepared(batch.to(self.device), self.task)
        maps = None if self.features is None else self.features(loaded, batch.image, self.task)
        if self._class_weights is not None:
            batch = batch._replace(weight=self._class_weights[batch.target])
        batch = thinned(batch, self.settings.loss_stride)
        self.batch, self.loss_terms = batch, {}
        self.tell("before_training_iteration")
        self.optimizer.zero_grad()
        parts = self.settings.accumulation
        whole = distributed.total(sizes(batch)) if parts > 1 else None
        for part in split(batch, parts):
            self.learn(part, whole, maps)
        distributed.sum_gradients(p for group in self.optimizer.param_groups for p in group["params"])
        self.tell("before_update")
        self.precision.step(self.optimizer)
        self.tell("after_update")
        self.tell("after_training_iteration")
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.schedule.step()
        self.iterations += 1
        self.strategy.after_iteration()
        if self.events:
            self.events.iteration(self.epoch, self.iterations, self.loss_terms, len(batch.image), rates)

    def learn(self, batch: Batch, whole: Tensor | None, maps: features.Maps = None) -> None:
        """Add the gradients of a prepared batch, or of a part of one: then `whole` is `sizes` of all of it.

        Loss terms of a part, and of one process of several, are its shares in those of the whole batch. `maps` are
        those of a frozen encoder, where they are kept.
        """
        self.tell("before_forward")
        with self.precision.autocast(), features.given(self.network, maps):
            self.output = widened(self._forward(batch.image, self.settings.loss_stride))
        self.tell("after_forward")
        teacher_output = self.teach(batch.image, maps, self.settings.loss_stride)
        batch = self.strategy.prepare_batch(batch, teacher_output)
        shares: Tensor | None = None  # of labelled pixels and of images
        if whole is not None or distributed.world() > 1:
            own = sizes(batch)
            shares = own / (distributed.total(own) if whole is None else whole).clamp(min=torch.finfo(own.dtype).tiny)
        share = 1.0 if shares is None else shares[1]
        self.task.update_critic(self.output.logits.detach(), batch, share=share, reduce=distributed.sum_gradients)
        terms = self.terms(self.output, batch, teacher_output)
        labelled = self.strategy.task_share == "labelled"
        if labelled and self.settings.mean_over == "all":
            terms["task"], labelled = terms["task"] * labelled_share(batch), False
        if shares is not None:
            terms = {name: term * shares[0 if name == "task" and labelled else 1] for name, term in terms.items()}
        self.loss = torch.stack([term.reshape(()) for term in terms.values()]).sum()
        self._watch(terms)
        self.tell("before_backward")
        self.precision.backward(self.loss)
        self.tell("after_backward")

    def terms(self, output: Output, batch: Batch, teacher_output: Output | None) -> dict[str, Tensor]:
        """The named terms of the loss: `task`, `regulariser`, and each plugin's own."""
        strategy = self.strategy
        terms = {"task": strategy.task_loss(output, batch, teacher_output)}
        if teacher_output is not None and strategy.overrides("regulariser"):
            terms["regulariser"] = strategy.regulariser(output, batch, teacher_output)
        for plugin in self.plugins:
            if (term := plugin.loss(strategy, output, batch, teacher_output)) is not None:
                terms[plugin.name] = term
        return terms

    def teach(self, image: Tensor, maps: features.Maps = None, stride: int | None = 1) -> Output | None:
        """The teacher's output, None at step 0 and for methods that do not ask for one; `stride` as in `Network`."""
        if self.teacher is None or not self.needs_teacher:
            return None
        with torch.no_grad(), self.precision.autocast(), features.given(self.teacher, maps, self.features):
            return widened(self.teacher(image, stride))

    def end_epoch(self) -> None:
        """Check what was learnt, count the epoch and keep a checkpoint."""
        self.tell("after_training_epoch")
        self.guard.check_loss(f"{self._place()}, iteration ")
        check_weights(self.network.parameters(), f"{self._place()}, iteration {self.iterations}")
        distributed.average_buffers(self.network)
        if self.events:
            self.events.epoch_finished(self.epoch, self.iterations, self.loss_terms)
        self.epoch += 1
        if self.after_epoch is not None:
            self.after_epoch()

    def finish(self, experience: Experience) -> None:
        """Conclude a step that was trained, or a first step that was loaded."""
        seed_torch(self.seed, "after", experience.step)
        self.experience = experience
        self.strategy.after_step(experience)
        for plugin in self.plugins:
            plugin.after_step(self.strategy, experience)
        distributed.copy_from_main(self.network)
        self.tell("after_training_exp")

    # ---- what it is made of

    @property
    def scenario(self) -> Scenario:
        """The stream with its data."""
        assert self._scenario is not None, "a finished run has no data"
        return self._scenario

    @property
    def task(self) -> Task:
        """The task of this step."""
        return self.stream.tasks[max(self.step, 0)]

    @property
    def needs_teacher(self) -> bool:
        """True if the method or a plugin looks at the teacher's output; else it is not computed."""
        return self.strategy.needs_teacher or any(plugin.needs_teacher for plugin in self.plugins)

    def tell(self, callback: str) -> None:
        """Call a callback of the stock plugins, where there are some."""
        if self.stock is not None:
            self.stock.call(callback)

    def length(self, experience: Experience) -> tuple[int, int]:
        """(epochs, iterations) of a step: the settings' length times the method's `length_factor`."""
        s, images = self.settings, len(experience.images.indices)
        factor = self.strategy.length_factor(experience.step)
        return step_length(images, s.batch, *s.length(experience.step), factor, s.drop_last)

    def prepared(self, batch: Batch, task: Task) -> Batch:
        """A batch as the loader gives it (image uint8, labels) as a task sees it: input normalised, its own target."""
        image, target, weight = task.prepare(batch.image, batch.target)
        image = normalise(image, *self.normalisation)
        if self.settings.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        return batch._replace(image=image, target=target, weight=weight)

    def order(self, extend: Extend, **share: Any) -> EpochBatches:
        """Batches of the keys of this step's samples; their order derives from seed, step and epoch."""
        images = len(self.experience.images.indices)
        return EpochBatches(images, self.settings.batch, self.seed, self.step, extend, **share)

    def load(self, batches: EpochBatches) -> Iterable[Batch]:
        """The loader of a step's samples."""
        return make_loader(self.scenario.training, batches, self.workers, self.device.type == "cuda")

    def _extended(self, keys: list[SampleKey], epoch: int, iteration: int) -> list[SampleKey]:
        for plugin in self.plugins:
            keys = plugin.extend_keys(self.strategy, keys, epoch, iteration)
        return keys

    def _watch(self, terms: dict[str, Tensor]) -> None:
        """Note the loss terms, of all processes, and stop where one is lost."""
        plugins = (plugin.name for plugin in self.plugins)
        terms = distributed.total_terms(terms, ["task", "regulariser", *plugins], self.device)
        shown = self.loss if distributed.world() == 1 else torch.stack(list(terms.values())).sum()
        self.guard.look(shown, terms, self.iterations)
        for name, term in terms.items():
            self.loss_terms[name] = self.loss_terms[name] + term.detach() if name in self.loss_terms else term.detach()
        if self.device.type == "cpu":  # elsewhere at the end of the epoch: looking waits for the device
            self.guard.check_loss(f"{self._place()}, iteration ")

    def _place(self) -> str:
        """The step and epoch in training, for messages."""
        return f"at step {self.step}, epoch {self.epoch}"

    def stored_bytes(self) -> int:
        """Bytes kept from earlier steps to learn the next: the teacher where one is used, and what the method keeps."""
        teacher = sum(p.numel() * p.element_size() for p in self.network.parameters()) if self.needs_teacher else 0
        own = self.strategy.stored_bytes()
        return teacher + own + sum(plugin.stored_bytes(self.strategy) for plugin in self.plugins)

    def notes(self) -> dict[str, Any]:
        """Plain values of the plugins for the record of the step, by name."""
        return {plugin.name: values for plugin in self.plugins if (values := plugin.notes(self.strategy))}

    # ---- going on from the end of an epoch; see `densecl.training.state`

    def state(self) -> dict[str, Any]:
        """All that training needs to go on from here: tensors, numbers, strings and containers."""
        return state.of_loop(self)

    def resume(self, saved: dict[str, Any] | None) -> None:
        """Let the next `begin` go on from a state; until then the network is that of the step before."""
        self._resumed = saved

    @property
    def resuming(self) -> bool:
        """True if the next `begin` goes on from a state."""
        return self._resumed is not None

    def method_state(self) -> dict[str, Any]:
        """The state of strategy and plugins, by name."""
        return state.of_method(self)

    def load_method_state(self, saved: dict[str, Any]) -> None:
        """Restore what `method_state` returned, on the device of this run."""
        state.restore_method(self, saved)
