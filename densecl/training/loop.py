"""The training loop: Avalanche's supervised template, with the parts that dense targets and growing heads need.

Replaced here, because the stock parts fail or fail silently on dense data: the loader, the optimiser's parameter
bookkeeping, the criterion, growth, and the train/eval mode of BatchNorm.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from avalanche.core import BasePlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn

from densecl.errors import RunError
from densecl.models.network import Network, Output
from densecl.recipe import TrainingSettings
from densecl.seeding import derive
from densecl.streams.samples import SampleKey
from densecl.streams.scenario import DenseExperience, Scenario
from densecl.training.batch import Batch, normalise
from densecl.training.class_weights import class_weights, label_frequencies
from densecl.training.loader import EpochBatches, make_loader, step_length
from densecl.training.precision import Precision
from densecl.training.schedule import make_optimizer, make_schedule
from densecl.training.teacher import snapshot

GUARD_EVERY = 50  # iterations between checks of the loss on a GPU, where each one waits for the device


class Events(Protocol):
    """Who wants to know how training goes; called once an iteration, so it must be quick."""

    def step_started(self, step: int, epochs: int, iterations: int) -> None:
        """A step begins, of so many epochs and iterations."""
        ...

    def iteration(self, epoch: int, iteration: int, loss_terms: dict[str, Tensor], samples: int) -> None:
        """An iteration is done."""
        ...


class Loop(SupervisedTemplate):
    """Trains a network on one experience after another; `Strategy` adds the hooks that methods override.

    Attributes:
        network: being trained. teacher: the frozen one of the previous step, None at step 0.
        step: counted from 0. n_old: outputs that existed before the step, output 0 included.
        scenario: the stream. settings: of training. seed: of the run.
        loss_terms: the named parts of the last loss. iterations: trained in this step.
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
        self.precision = Precision(settings.precision, torch.device(device))
        self.normalisation = tuple(part.to(device) for part in scenario.normalisation)
        self.teacher: Network | None = None
        self.loss_terms: dict[str, Tensor] = {}
        self.step, self.n_old, self.epoch, self.iterations = -1, 0, 0, 0
        self._length = (0, 0)
        self._class_weights: Tensor | None = None

    # hooks that Strategy defines; named here so that the loop can be read on its own
    before_step: Callable[[DenseExperience], None]
    finish_step: Callable[[DenseExperience], None]
    param_groups: Callable[[], list[dict[str, Any]]]
    train_mode: Callable[[], None]
    build_head: Callable[[int, int], nn.Module]
    loss_parts: Callable[[Output, Batch, Output | None], dict[str, Tensor]]
    extend_keys: Callable[[list[SampleKey], int, int], list[SampleKey]]
    needs_teacher: bool

    @property
    def network(self) -> Network:
        """The network being trained, which Avalanche calls `model`."""
        return self.model  # type: ignore[return-value]

    def grow(self, experience: DenseExperience) -> None:
        """Enter a step: the network as it is becomes the teacher, then its heads grow."""
        if self.network.n_outputs:
            self.teacher = snapshot(self.network)
        self.step, self.n_old = experience.step, self.network.n_outputs
        torch.manual_seed(derive(self.seed, "head", self.step))
        self.network.grow(experience.n_outputs - self.n_old, self.build_head)
        self.network.to(self.device)

    # ---- Avalanche's stages of a step, in the order they run

    def make_train_dataloader(self, **_kwargs: Any) -> None:
        """The loader of this step, in the order that derives from seed, step and epoch."""
        experience = self._experience()
        n = len(experience.images.indices)
        self._batches = EpochBatches(n, self.settings.batch, self.seed, experience.step, self.extend_keys)
        pin = self.device.type == "cuda"
        self.dataloader = make_loader(self.scenario.training, self._batches, self.workers, pin)
        self._length = step_length(n, self.settings.batch, *self.settings.length(experience.step))
        self.train_epochs, self.iterations = self._length[0], 0

    def check_model_and_optimizer(self, **_kwargs: Any) -> None:
        """Grow, let the method prepare, then build optimiser and schedule anew."""
        experience = self._experience()
        self.grow(experience)
        self.before_step(experience)
        self.optimizer = make_optimizer(self.param_groups(), self.settings, self.step)
        self._schedule = make_schedule(self.optimizer, self.settings, self._length[1])
        self._class_weights = None
        if self.settings.class_weights:
            frequencies = label_frequencies(self.scenario, experience.images)
            self._class_weights = class_weights(frequencies, self.settings.class_weights).to(self.device)
        if self.events:
            self.events.step_started(self.step, *self._length)

    def _train_exp(self, experience: Any, eval_streams: Any = None, **kwargs: Any) -> None:
        self.epoch = 0
        super()._train_exp(experience, eval_streams, **kwargs)

    def _before_training_epoch(self, **kwargs: Any) -> None:
        torch.manual_seed(derive(self.seed, "epoch", self.step, self.epoch))
        self._batches.set_epoch(self.epoch, self._length[1] - self.iterations)
        self.train_mode()
        super()._before_training_epoch(**kwargs)

    def _unpack_minibatch(self) -> None:
        batch: Batch = self.mbatch.to(self.device)  # type: ignore[union-attr]
        batch = batch._replace(image=normalise(batch.image, *self.normalisation))
        if self._class_weights is not None:
            batch = batch._replace(weight=self._class_weights[batch.target])
        self.mbatch = batch  # type: ignore[assignment]

    def forward(self) -> Output:
        """The network's output on the current batch, in float32."""
        with self.precision.autocast():
            return _float(self.model(self.mb_x))

    def criterion(self) -> Tensor:
        """The sum of the named loss terms."""
        batch: Batch = self.mbatch  # type: ignore[assignment]
        self.loss_terms = self.loss_parts(self.mb_output, batch, self.teach(batch.image))  # type: ignore[arg-type]
        loss = torch.stack([term.reshape(()) for term in self.loss_terms.values()]).sum()
        self._guard(loss)
        return loss

    def teach(self, image: Tensor) -> Output | None:
        """The teacher's output, None at step 0 and for methods that do not ask for one."""
        if self.teacher is None or not self.needs_teacher:
            return None
        with torch.no_grad(), self.precision.autocast():
            return _float(self.teacher(image))

    def backward(self) -> None:
        """Gradients of the loss."""
        self.precision.backward(self.loss)

    def optimizer_step(self) -> None:
        """One update of weights and learning rate."""
        self.precision.step(self.optimizer)
        self._schedule.step()
        self.iterations += 1
        if self.events:
            self.events.iteration(self.epoch, self.iterations, self.loss_terms, len(self.mb_x))

    def _after_training_epoch(self, **kwargs: Any) -> None:
        super()._after_training_epoch(**kwargs)
        self.epoch += 1

    def _after_training_exp(self, **kwargs: Any) -> None:
        self.finish_step(self._experience())
        super()._after_training_exp(**kwargs)

    # ----

    def _experience(self) -> DenseExperience:
        assert isinstance(self.experience, DenseExperience)
        return self.experience

    def _guard(self, loss: Tensor) -> None:
        """Stop at a loss that is not finite, and say which term it was."""
        if self.device.type == "cuda" and self.iterations % GUARD_EVERY:
            return
        if torch.isfinite(loss):
            return
        bad = [f"{name} is {term.item()}" for name, term in self.loss_terms.items() if not torch.isfinite(term).all()]
        raise RunError(
            f"the loss is not finite at step {self.step}, epoch {self.epoch}, iteration {self.iterations}: "
            f"{', '.join(bad) or 'the sum overflows'}",
            "try a lower training.lr, some training.warmup, or --precision fp32",
        )


def _float(output: Output) -> Output:
    """The output in float32: losses are never computed in half precision."""
    if output.logits.dtype == torch.float32:
        return output

    def cast(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.float() for tensor in tensors)

    decoded = None if output.decoded is None else output.decoded.float()
    return Output(output.logits.float(), cast(output.auxiliary), cast(output.encoded), decoded)
