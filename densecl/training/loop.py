"""The training loop: Avalanche's supervised template, with the parts that dense targets and growing heads need.

Replaced here, because the stock parts fail or fail silently on dense data: the loader, the optimiser's parameter
bookkeeping, the criterion, growth, and the train/eval mode of BatchNorm.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from avalanche.core import BasePlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn

from densecl.models.network import Network, Output
from densecl.seeding import derive
from densecl.settings.recipe import TrainingSettings
from densecl.streams.samples import SampleKey
from densecl.streams.scenario import DenseExperience, Scenario
from densecl.tasks import Task
from densecl.training import distributed
from densecl.training.batch import Batch, normalise, sizes, split
from densecl.training.class_weights import class_weights, label_frequencies
from densecl.training.guards import LossGuard, check_weights
from densecl.training.loader import EpochBatches, make_loader, step_length
from densecl.training.parts import check_parts
from densecl.training.precision import Precision, widened
from densecl.training.schedule import make_schedule
from densecl.training.teacher import snapshot


class Events(Protocol):
    """Who wants to know how training goes; `iteration` is called once an iteration, so it must be quick."""

    def step_started(self, step: int, epochs: int, iterations: int, batches: int, done: int) -> None:
        """A step begins: of so many epochs and iterations, batches an epoch, iterations done before a kill."""
        ...

    def iteration(
        self, epoch: int, iteration: int, loss_terms: dict[str, Tensor], samples: int, rates: Sequence[float]
    ) -> None:
        """An iteration is done, with these learning rates; reading a loss may wait for the device."""
        ...

    def epoch_finished(self, epoch: int, iteration: int, loss_terms: dict[str, Tensor]) -> None:
        """An epoch is done, and the device was waited for."""
        ...


class Loop(SupervisedTemplate):
    """Trains a network on one experience after another; `Strategy` adds the hooks that methods override.

    Attributes:
        network: being trained. teacher: the frozen one of the previous step, None at step 0.
        step: counted from 0. n_old: outputs that existed before the step, output 0 included.
        scenario: the stream. settings: of training. seed: of the run.
        loss_terms: the named parts of the last loss. iterations: trained in this step.
        planned: (epochs, iterations) of this step.
    """

    def __init__(
        self,
        *,
        network: Network,
        scenario: Scenario,
        settings: TrainingSettings,
        seed: int = 0,
        device: torch.device | str = "cpu",
        workers: int = 0,
        plugins: Sequence[BasePlugin] = (),
        events: Events | None = None,
    ):
        placeholder = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.0)  # each step makes its own
        with warnings.catch_warnings():  # an evaluator without loggers is meant: the runner evaluates and records
            warnings.simplefilter("ignore")
            super().__init__(
                model=network,
                optimizer=placeholder,
                train_mb_size=settings.batch,
                device=torch.device(device),
                plugins=list(plugins),
                evaluator=EvaluationPlugin(),
                eval_every=-1,
            )
        self.scenario, self.settings, self.seed, self.workers, self.events = scenario, settings, seed, workers, events
        if scenario.by_task:
            network.by_task()
        if settings.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.benchmark = False
        check_parts(settings, plugins, scenario.tasks, type(self).__name__, self.changes_targets, torch.device(device))
        self.precision = Precision(settings.precision, torch.device(device))
        self.normalisation = tuple(part.to(device) for part in scenario.normalisation)
        self.teacher: Network | None = None
        self.loss_terms: dict[str, Tensor] = {}
        self.step, self.n_old, self.epoch, self.iterations = -1, 0, 0, 0
        self.after_epoch: Callable[[], None] | None = None  # the runner's, to keep a checkpoint
        self.planned = (0, 0)
        self._class_weights: Tensor | None = None
        self._resumed: dict[str, Any] | None = None
        self._guard = LossGuard(self.precision.scaler is not None)
        self._whole: Tensor | None = None  # `sizes` of the batch that the current one is a part of
        self._forward: Callable[[Tensor], Output] = self.model

    # hooks that Strategy defines; named here so that the loop can be read on its own
    before_step: Callable[[DenseExperience], None]
    finish_step: Callable[[DenseExperience], None]
    method_state: Callable[[], dict[str, Any]]
    load_method_state: Callable[[dict[str, Any]], None]
    param_groups: Callable[[], list[dict[str, Any]]]
    train_mode: Callable[[], None]
    build_head: Callable[[int, int], nn.Module]
    prepare_batch: Callable[[Batch, Output | None], Batch]
    loss_parts: Callable[[Output, Batch, Output | None], dict[str, Tensor]]
    term_names: list[str]
    extend_keys: Callable[[list[SampleKey], int, int], list[SampleKey]]
    make_optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    longer: Callable[[int], float]
    needs_teacher: bool
    changes_targets: bool
    compiled_hooks: tuple[str, ...]

    @property
    def network(self) -> Network:
        """The network being trained, which Avalanche calls `model`."""
        return self.model  # type: ignore[return-value]

    @property
    def task(self) -> Task:
        """What the network must output at this step."""
        return self.scenario.tasks[max(self.step, 0)]

    def grow(self, experience: DenseExperience) -> None:
        """Enter a step: the network as it is becomes the teacher, then its heads grow, or a new task gets one."""
        by_task = self.scenario.by_task
        if self.network.n_outputs and (self.needs_teacher or not by_task):
            self.teacher = snapshot(self.network)
        self.step, self.n_old = experience.step, 0 if by_task else self.network.n_outputs
        if by_task:
            self.network.task_heads.begin(experience.task.name)
        torch.manual_seed(derive(self.seed, "head", self.step))
        self.network.grow(experience.n_outputs - self.n_old, self.build_head)
        if distributed.syncs_batchnorm(self.device):
            nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
        self.network.to(self.device)
        if self.settings.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._forward = self.network
        if self.settings.compile:
            self._compile()

    def length(self, experience: DenseExperience) -> tuple[int, int]:
        """(epochs, iterations) of a step: what the settings say, `longer` times."""
        images, given = len(experience.images.indices), self.settings.length(experience.step)
        return step_length(images, self.settings.batch, *given, self.longer(experience.step))

    def _compile(self) -> None:
        """Compile network and losses; anew each step, since the graphs have other outputs now."""
        torch.compiler.reset()  # graphs of earlier steps count against the limit above which torch compiles no more
        self._forward = torch.compile(self.network)
        for hook in self.compiled_hooks if self.compiles_losses else ():
            setattr(self, hook, torch.compile(getattr(type(self), hook).__get__(self)))

    @property
    def compiles_losses(self) -> bool:
        """Whether `training.compile` is for losses too: on a CPU their own passes are faster than compiled ones."""
        return self.device.type != "cpu"

    # ---- Avalanche's stages of a step, in the order they run

    def make_train_dataloader(self, **_kwargs: Any) -> None:
        """The loader of this step, in the order that derives from seed, step and epoch."""
        experience = self._experience()
        self._batches = EpochBatches(
            len(experience.images.indices),
            self.settings.batch,
            self.seed,
            experience.step,
            self.extend_keys,
            rank=distributed.rank(),
            world=distributed.world(),
            least=distributed.least_share(self.device),
        )
        pin = self.device.type == "cuda"
        self.dataloader = make_loader(self.scenario.training, self._batches, self.workers, pin)
        self.planned = self.length(experience)
        self.epoch, self.iterations = 0, 0
        self._guard = LossGuard(self.precision.scaler is not None)

    def check_model_and_optimizer(self, **_kwargs: Any) -> None:
        """Grow, let the method prepare, then build optimiser and schedule anew."""
        experience = self._experience()
        self.grow(experience)
        if self._resumed is None:
            self.before_step(experience)
        else:  # what the method froze decides what the optimiser holds
            self.load_method_state(self._resumed["method"])
        groups = self.param_groups()
        factors = [group.pop("factor", None) for group in groups]  # functions: no part of a state
        self.optimizer = self.make_optimizer(groups)
        self._schedule = make_schedule(self.optimizer, self.settings, self.planned[1], factors)
        if self._resumed is not None:
            self._restore(self._resumed)
            self._resumed = None
        self.train_epochs = self.planned[0] - self.epoch
        self._class_weights = None
        if self.settings.class_weights and self.task.kind == "segmentation":
            frequencies = label_frequencies(self.scenario, experience.images)
            self._class_weights = class_weights(frequencies, self.settings.class_weights).to(self.device)
        if self.events:
            self.events.step_started(self.step, *self.planned, len(self._batches), self.iterations)

    def _before_training_epoch(self, **kwargs: Any) -> None:
        process = (distributed.rank(),) if distributed.rank() else ()  # dropout must not be the same in all processes
        torch.manual_seed(derive(self.seed, "epoch", self.step, self.epoch, *process))
        self._batches.set_epoch(self.epoch, self.planned[1] - self.iterations)
        self.train_mode()
        super()._before_training_epoch(**kwargs)

    def _unpack_minibatch(self) -> None:
        batch = self.prepared(self.mbatch.to(self.device), self.task)  # type: ignore[union-attr]
        if self._class_weights is not None:
            batch = batch._replace(weight=self._class_weights[batch.target])
        self.mbatch = batch  # type: ignore[assignment]

    def prepared(self, batch: Batch, task: Task) -> Batch:
        """A batch as the loader gives it (image uint8, labels) as a task sees it: input normalised, its own target."""
        image, target = task.prepare(batch.image, batch.target)
        image = normalise(image, *self.normalisation)
        if self.settings.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        return batch._replace(image=image, target=target)

    def training_epoch(self, **kwargs: Any) -> None:
        """One pass over the loader; with accumulation, each batch in parts whose losses add up to that of the whole."""
        if self.settings.accumulation == 1:
            super().training_epoch(**kwargs)
            return
        for batch in self.dataloader:
            self.mbatch = batch
            self._unpack_minibatch()
            self._before_training_iteration(**kwargs)
            self.optimizer.zero_grad()
            whole: Batch = self.mbatch  # type: ignore[assignment]
            totals: dict[str, Tensor] = {}
            self._whole = distributed.total(sizes(whole))
            for part in split(whole, self.settings.accumulation):
                self.mbatch = part  # type: ignore[assignment]
                self._before_forward(**kwargs)
                self.mb_output = self.forward()
                self._after_forward(**kwargs)
                self.loss = self.criterion()
                for name, term in self.loss_terms.items():
                    totals[name] = totals.get(name, 0) + term.detach()  # type: ignore[operator]
                self._before_backward(**kwargs)
                self.backward()
                self._after_backward(**kwargs)
            self.mbatch, self.loss_terms, self._whole = whole, totals, None  # type: ignore[assignment]
            self._before_update(**kwargs)
            self.optimizer_step()
            self._after_update(**kwargs)
            self._after_training_iteration(**kwargs)

    def forward(self) -> Output:
        """The network's output on the current batch, in float32."""
        with self.precision.autocast():
            return widened(self._forward(self.mb_x))

    def criterion(self) -> Tensor:
        """The sum of the named loss terms; of a part of a batch, its share in the loss of the whole."""
        batch: Batch = self.mbatch  # type: ignore[assignment]
        teacher_output = self.teach(batch.image)
        batch = self.prepare_batch(batch, teacher_output)
        shares: Tensor | None = None  # of labelled pixels and of images in the whole batch
        if self._whole is not None or distributed.world() > 1:
            own = sizes(batch)
            whole = distributed.total(own) if self._whole is None else self._whole
            shares = own / whole.clamp(min=torch.finfo(torch.float32).tiny)
        output: Output = self.mb_output  # type: ignore[assignment]
        share = 1.0 if shares is None else shares[1]
        self.task.update_critic(output.logits.detach(), batch, share=share, reduce=distributed.sum_gradients)
        terms = self.loss_parts(output, batch, teacher_output)
        if shares is not None:
            terms = {name: term * (shares[0] if name == "task" else shares[1]) for name, term in terms.items()}
        loss = torch.stack([term.reshape(()) for term in terms.values()]).sum()
        self.loss_terms = self._of_all_processes(terms)
        shown = loss if distributed.world() == 1 else torch.stack(list(self.loss_terms.values())).sum()
        self._guard.look(shown, self.loss_terms, self.iterations)
        if self.device.type == "cpu":  # elsewhere at the end of the epoch: looking waits for the device
            self._guard.check_loss(f"{self._place()}, iteration ")
        return loss

    def _of_all_processes(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss terms summed over processes, of which one may lack a term that another has."""
        if distributed.world() == 1:
            return terms
        names = [*self.term_names, *(name for name in terms if name not in self.term_names)]
        zero = torch.zeros((), device=self.device)
        row = torch.stack([terms[name].detach().float().reshape(()) if name in terms else zero for name in names])
        present = torch.tensor([float(name in terms) for name in names], device=self.device)
        row, present = distributed.total(torch.stack([row, present]))
        return {name: row[k] for k, name in enumerate(names) if present[k] > 0}

    def teach(self, image: Tensor) -> Output | None:
        """The teacher's output, None at step 0 and for methods that do not ask for one."""
        if self.teacher is None or not self.needs_teacher:
            return None
        with torch.no_grad(), self.precision.autocast():
            return widened(self.teacher(image))

    def backward(self) -> None:
        """Gradients of the loss."""
        self.precision.backward(self.loss)

    def _before_update(self, **kwargs: Any) -> None:
        distributed.sum_gradients(p for group in self.optimizer.param_groups for p in group["params"])
        super()._before_update(**kwargs)

    def optimizer_step(self) -> None:
        """One update of weights and learning rate."""
        self.precision.step(self.optimizer)
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self._schedule.step()
        self.iterations += 1
        if self.events:
            self.events.iteration(self.epoch, self.iterations, self.loss_terms, len(self.mb_x), rates)

    def _after_training_epoch(self, **kwargs: Any) -> None:
        super()._after_training_epoch(**kwargs)
        self._guard.check_loss(f"{self._place()}, iteration ")
        check_weights(self.network.parameters(), f"{self._place()}, iteration {self.iterations}")
        distributed.average_buffers(self.network)
        if self.events:
            self.events.epoch_finished(self.epoch, self.iterations, self.loss_terms)
        self.epoch += 1
        if self.after_epoch is not None:
            self.after_epoch()

    def _after_training_exp(self, **kwargs: Any) -> None:
        self.finish_step(self._experience())
        distributed.copy_from_main(self.network)
        super()._after_training_exp(**kwargs)

    # ---- going on from the end of an epoch

    def state(self) -> dict[str, Any]:
        """All that training needs to go on from here: tensors, numbers, strings and containers.

        Generators are not in it: every draw derives from seed, step, epoch and index. Nor is the teacher, which is the
        kept network of the previous step.
        """
        scaler = self.precision.scaler
        return {
            "step": self.step,
            "epoch": self.epoch,
            "iterations": self.iterations,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "method": self.method_state(),
            "task": self.task.state_dict(),  # a critic
        }

    def resume(self, state: dict[str, Any] | None) -> None:
        """Let the next `train` go on from a state; until then the network is that of the step before."""
        self._resumed = state

    @property
    def resuming(self) -> bool:
        """Whether the next `train` goes on from a state."""
        return self._resumed is not None

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        if self.precision.scaler is not None and state["scaler"] is not None:
            self.precision.scaler.load_state_dict(state["scaler"])
        self.task.load_state_dict(state.get("task", {}))
        self.epoch, self.iterations = state["epoch"], state["iterations"]

    # ----

    def _experience(self) -> DenseExperience:
        assert isinstance(self.experience, DenseExperience)
        return self.experience

    def _place(self) -> str:
        """Where training is, for messages."""
        return f"at step {self.step}, epoch {self.epoch}"
