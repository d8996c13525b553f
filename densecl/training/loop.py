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

from densecl.errors import RunError, SettingError
from densecl.models.network import Network, Output
from densecl.recipe import TrainingSettings
from densecl.seeding import derive
from densecl.streams.samples import SampleKey
from densecl.streams.scenario import DenseExperience, Scenario
from densecl.training.batch import Batch, normalise, split
from densecl.training.class_weights import class_weights, label_frequencies
from densecl.training.loader import EpochBatches, make_loader, step_length
from densecl.training.precision import Precision
from densecl.training.schedule import make_optimizer, make_schedule
from densecl.training.teacher import snapshot

OVERFLOWS = 20  # iterations in a row with a loss beyond fp16 that are no longer an overflow to be skipped


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
        if settings.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.benchmark = False
        if settings.accumulation > 1 and any(not getattr(plugin, "dense", False) for plugin in plugins):
            raise SettingError(
                "training.accumulation does not go with a stock Avalanche plugin: its penalty would count once a part",
                "use a smaller training.batch instead",
            )
        if settings.accumulation > 1 and self.changes_targets:
            raise SettingError(
                f"training.accumulation does not go with {type(self).__name__}: it changes targets or weights of a "
                "batch, and the shares of its parts would be those from before",
                "use a smaller training.batch instead",
            )
        self.precision = Precision(settings.precision, torch.device(device))
        self.normalisation = tuple(part.to(device) for part in scenario.normalisation)
        self.teacher: Network | None = None
        self.loss_terms: dict[str, Tensor] = {}
        self.step, self.n_old, self.epoch, self.iterations = -1, 0, 0, 0
        self.after_epoch: Callable[[], None] | None = None  # the runner's, to keep a checkpoint
        self._length = (0, 0)
        self._class_weights: Tensor | None = None
        self._resumed: dict[str, Any] | None = None
        self._bad_run: Tensor | None = None
        self._first_bad: Tensor | None = None
        self._bad_terms: Tensor | None = None
        self._share: tuple[Tensor, float] | None = None
        self._forward: Callable[[Tensor], Output] = self.model

    # hooks that Strategy defines; named here so that the loop can be read on its own
    before_step: Callable[[DenseExperience], None]
    finish_step: Callable[[DenseExperience], None]
    method_state: Callable[[], dict[str, Any]]
    load_method_state: Callable[[dict[str, Any]], None]
    param_groups: Callable[[], list[dict[str, Any]]]
    train_mode: Callable[[], None]
    build_head: Callable[[int, int], nn.Module]
    loss_parts: Callable[[Output, Batch, Output | None], dict[str, Tensor]]
    extend_keys: Callable[[list[SampleKey], int, int], list[SampleKey]]
    needs_teacher: bool
    changes_targets: bool

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
        if self.settings.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # compiled anew each step: the graph has other outputs now
        self._forward = torch.compile(self.network) if self.settings.compile else self.network  # type: ignore[assignment]

    # ---- Avalanche's stages of a step, in the order they run

    def make_train_dataloader(self, **_kwargs: Any) -> None:
        """The loader of this step, in the order that derives from seed, step and epoch."""
        experience = self._experience()
        n = len(experience.images.indices)
        self._batches = EpochBatches(n, self.settings.batch, self.seed, experience.step, self.extend_keys)
        pin = self.device.type == "cuda"
        self.dataloader = make_loader(self.scenario.training, self._batches, self.workers, pin)
        self._length = step_length(n, self.settings.batch, *self.settings.length(experience.step))
        self.epoch, self.iterations = 0, 0
        self._bad_run = self._first_bad = self._bad_terms = None

    def check_model_and_optimizer(self, **_kwargs: Any) -> None:
        """Grow, let the method prepare, then build optimiser and schedule anew."""
        experience = self._experience()
        self.grow(experience)
        if self._resumed is None:
            self.before_step(experience)
        else:  # what the method froze decides what the optimiser holds
            self.load_method_state(self._resumed["method"])
        self.optimizer = make_optimizer(self.param_groups(), self.settings, self.step)
        self._schedule = make_schedule(self.optimizer, self.settings, self._length[1])
        if self._resumed is not None:
            self._restore(self._resumed)
            self._resumed = None
        self.train_epochs = self._length[0] - self.epoch
        self._class_weights = None
        if self.settings.class_weights:
            frequencies = label_frequencies(self.scenario, experience.images)
            self._class_weights = class_weights(frequencies, self.settings.class_weights).to(self.device)
        if self.events:
            self.events.step_started(self.step, *self._length)

    def _before_training_epoch(self, **kwargs: Any) -> None:
        torch.manual_seed(derive(self.seed, "epoch", self.step, self.epoch))
        self._batches.set_epoch(self.epoch, self._length[1] - self.iterations)
        self.train_mode()
        super()._before_training_epoch(**kwargs)

    def _unpack_minibatch(self) -> None:
        batch: Batch = self.mbatch.to(self.device)  # type: ignore[union-attr]
        image = normalise(batch.image, *self.normalisation)
        if self.settings.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        batch = batch._replace(image=image)
        if self._class_weights is not None:
            batch = batch._replace(weight=self._class_weights[batch.target])
        self.mbatch = batch  # type: ignore[assignment]

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
            for part, labelled, images in split(whole, self.settings.accumulation):
                self.mbatch = part  # type: ignore[assignment]
                self._before_forward(**kwargs)
                self.mb_output = self.forward()
                self._after_forward(**kwargs)
                self._share = (labelled, images)
                self.loss = self.criterion()
                for name, term in self.loss_terms.items():
                    totals[name] = totals.get(name, 0) + term.detach()  # type: ignore[operator]
                self._before_backward(**kwargs)
                self.backward()
                self._after_backward(**kwargs)
            self.mbatch, self.loss_terms, self._share = whole, totals, None  # type: ignore[assignment]
            self._before_update(**kwargs)
            self.optimizer_step()
            self._after_update(**kwargs)
            self._after_training_iteration(**kwargs)

    def forward(self) -> Output:
        """The network's output on the current batch, in float32."""
        with self.precision.autocast():
            return _float(self._forward(self.mb_x))

    def criterion(self) -> Tensor:
        """The sum of the named loss terms."""
        batch: Batch = self.mbatch  # type: ignore[assignment]
        terms = self.loss_parts(self.mb_output, batch, self.teach(batch.image))  # type: ignore[arg-type]
        if self._share is not None:  # the supervised loss is a mean over labelled pixels, all others over images
            labelled, images = self._share
            terms = {name: term * (labelled if name == "task" else images) for name, term in terms.items()}
        self.loss_terms = terms
        loss = torch.stack([term.reshape(()) for term in terms.values()]).sum()
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
        self._raise_if_bad()
        self.epoch += 1
        if self.after_epoch is not None:
            self.after_epoch()

    def _after_training_exp(self, **kwargs: Any) -> None:
        self.finish_step(self._experience())
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
        self.epoch, self.iterations = state["epoch"], state["iterations"]

    # ----

    def _experience(self) -> DenseExperience:
        assert isinstance(self.experience, DenseExperience)
        return self.experience

    def _guard(self, loss: Tensor) -> None:
        """Note a loss that is not finite, on the device; look at once on a CPU, elsewhere at the end of the epoch.

        With fp16 a loss may overflow for some iterations, which the scaler skips: only a run of them counts.
        """
        bad = ~torch.isfinite(loss.detach())
        self._bad_run = torch.where(bad, self._bad_run + 1, 0) if self._bad_run is not None else bad.long()
        if self._first_bad is None:
            self._first_bad = torch.full_like(self._bad_run, -1)
        limit = OVERFLOWS if self.precision.scaler is not None else 1
        found = (self._bad_run >= limit) & (self._first_bad < 0)
        self._first_bad = torch.where(found, self.iterations, self._first_bad)
        terms = torch.stack([~torch.isfinite(term.detach()).all() for term in self.loss_terms.values()])
        same = self._bad_terms is not None and len(self._bad_terms) == len(terms)
        self._bad_terms = torch.where(found, terms, self._bad_terms) if same else terms & found  # type: ignore[arg-type]
        if self.device.type == "cpu":
            self._raise_if_bad(parameters=False)

    def _raise_if_bad(self, parameters: bool = True) -> None:
        """Stop before a checkpoint is made of weights that are lost."""
        where = f"at step {self.step}, epoch {self.epoch}, iteration "
        advice = "try a lower training.lr, some training.warmup, or --precision fp32; the last good checkpoint is kept"
        if self._first_bad is not None and int(self._first_bad) >= 0:
            flags = self._bad_terms.tolist() if self._bad_terms is not None else []
            names = [name for name, bad in zip(self.loss_terms, flags, strict=False) if bad]
            what = (
                f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} nan or infinite"
                if names
                else "the sum overflows"
            )
            raise RunError(f"the loss is not finite {where}{int(self._first_bad)}: {what}", advice)
        if parameters:
            sums = torch.stack([p.detach().abs().sum() for p in self.network.parameters()])
            if not torch.isfinite(sums).all():
                raise RunError(f"the weights are not finite after {where}{self.iterations}", advice)


def _float(output: Output) -> Output:
    """The output in float32: losses are never computed in half precision."""
    if output.logits.dtype == torch.float32:
        return output

    def cast(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.float() for tensor in tensors)

    decoded = None if output.decoded is None else output.decoded.float()
    return Output(output.logits.float(), cast(output.auxiliary), cast(output.encoded), decoded)
