"""Trying a method on a tiny stream: `densecl check mine.py:Mine`. Findings are said in words."""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from densecl.data.dataset import Sample
from densecl.errors import DenseCLError
from densecl.losses import cross_entropy
from densecl.models import build_backbone
from densecl.models.network import Network, Output
from densecl.recipe import LaterSettings, TrainingSettings
from densecl.runner.evaluation import confusion
from densecl.runner.methods import Method, Part, parse_method
from densecl.strategies.base import Plugin, Strategy
from densecl.streams import protocol
from densecl.streams.scenario import Scenario, class_incremental
from densecl.training.batch import Batch

SIZE, IMAGES = 32, 24
TRAINING = TrainingSettings(
    epochs=2, batch=6, optimizer="adamw", lr=1e-3, later=LaterSettings(lr=1e-3), augmentation="flip", crop="full"
)


class TinyImages:
    """Squares of four colours on noise with void borders, in memory: a reader that needs no files."""

    name, split, has_background = "tiny", "train", True
    class_names = ("red", "green", "blue", "yellow")
    root = Path()

    def __init__(self, n: int, seed: int, size: int = SIZE):
        rng = np.random.default_rng(seed)
        colours = np.array([[0, 0, 0], [200, 30, 30], [30, 200, 30], [30, 30, 200], [200, 200, 30]])
        self.ids = tuple(f"tiny{seed}-{i}" for i in range(n))
        self.masks = np.zeros((n, size, size), dtype=np.uint8)
        for i, mask in enumerate(self.masks):
            for part, label in enumerate(1 + (i + np.array([0, rng.integers(1, 4)])) % 4):
                y, x = rng.integers(1, size // 2), 1 + part * size // 2
                mask[y - 1 : y + size // 3 + 1, x - 1 : x + size // 3 + 1] = 255
                mask[y : y + size // 3, x : x + size // 3] = label
        noise = rng.integers(0, 50, (n, size, size, 3))
        images = colours[np.where(self.masks == 255, 0, self.masks)] + noise
        self.images = np.ascontiguousarray(images.astype(np.uint8).transpose(0, 3, 1, 2))

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Sample:
        """The sample at a position."""
        return Sample(torch.from_numpy(self.images[index]), torch.from_numpy(self.masks[index]))

    def read_mask(self, index: int) -> np.ndarray:
        """Its mask alone."""
        return self.masks[index]

    def presence(self) -> np.ndarray:
        """(n, 256) bool: which ids each mask holds."""
        return protocol.presence([np.unique(mask).tolist() for mask in self.masks])

    def image_path(self, index: int) -> Path:
        """There is no file; its own source stands in."""
        return Path(__file__)

    mask_path = image_path


def tiny_scenario(*, joint: bool = False, size: int = SIZE, seed: int = 0) -> Scenario:
    """Four classes in three steps: {1, 2}, {3}, {4}."""
    train, test = TinyImages(IMAGES, seed=1, size=size), TinyImages(8, seed=2, size=size)
    return class_incremental(
        train,  # type: ignore[arg-type]
        test,  # type: ignore[arg-type]
        ((1, 2), (3,), (4,)),
        joint=joint,
        seed=seed,
        presence=train.presence(),
    )


def tiny_network(backbone: str = "bisenet", **values: Any) -> Network:
    """A network small enough to train in milliseconds."""
    if backbone == "bisenet" and not values:
        values = {"encoder": "mini", "weights": "none", "width": 16, "spatial": (8, 8), "spatial_width": 8}
    torch.manual_seed(0)
    return Network(build_backbone(backbone, values))


def tiny_strategy(
    method: Method,
    scenario: Scenario,
    network: Network | None = None,
    training: TrainingSettings = TRAINING,
    seed: int = 0,
) -> Strategy:
    """A strategy with its plugins on the tiny stream."""
    plugins = [part.cls(**part.resolved()) for part in method.plugins]
    for part, plugin in zip(method.plugins, plugins, strict=True):
        if isinstance(plugin, Plugin) and not type(plugin).name:
            plugin.name = part.name  # type: ignore[misc]
    strategy = method.strategy.cls(
        network=network or tiny_network(), scenario=scenario, settings=training, seed=seed, plugins=plugins
    )
    strategy.configure(method.strategy.resolved())
    return strategy


def check_method(text: str, catalogue: Path | None = None) -> list[str]:
    """What is wrong with a strategy or a plugin, in words; empty when nothing is.

    Raises:
        DenseCLError: the text names nothing that can be tried.
    """
    method = _method(text, catalogue)
    parts = (method.strategy, *method.plugins)
    findings = [finding for part in parts if not part.stock for finding in _static(part)]
    if findings:
        return findings
    with _quiet():
        try:
            findings += _train(method)
        except Finding as finding:
            findings.append(str(finding))
        if not findings and method.strategy.cls.first_step == "shared":  # type: ignore[attr-defined]
            findings += _shared(method)
    return list(dict.fromkeys(findings))


class Finding(Exception):
    """Something wrong, said in words."""


def _method(text: str, catalogue: Path | None) -> Method:
    """A plugin alone is tried on fine-tuning."""
    try:
        return parse_method(text, catalogue)
    except DenseCLError as error:
        if "only plugins" not in str(error):
            raise
        return parse_method(f"finetune+{text}", catalogue)


def _static(part: Part) -> list[str]:
    """Faults that can be seen without training."""
    base = Strategy if issubclass(part.cls, Strategy) else Plugin
    own = [cls for cls in part.cls.__mro__ if cls is not base and issubclass(cls, base)]
    findings = []
    for cls in own:
        annotated = vars(cls).get("__annotations__", {})
        for name, value in vars(cls).items():
            plain = isinstance(value, bool | int | float | str | tuple)
            if plain and not name.startswith("_") and name not in annotated and not hasattr(base, name):
                findings.append(
                    f"{cls.__name__}.{name} has no annotation, so it is not a hyper-parameter: write "
                    f"'{name}: {type(value).__name__} = {value!r}'"
                )
        bare = [name for name in annotated if name not in vars(cls) and not name.startswith("_")]
        findings += [f"{cls.__name__}.{name} has no default value: every hyper-parameter needs one" for name in bare]
        for name, value in vars(cls).items():
            theirs = getattr(base, name, None)
            if inspect.isfunction(value) and inspect.isfunction(theirs) and name != "__init__":
                wanted, given = _arguments(theirs), _arguments(value)
                if len(given) != len(wanted) and "*" not in "".join(given):
                    findings.append(f"{cls.__name__}.{name}({', '.join(given)}) should take ({', '.join(wanted)})")
    if issubclass(part.cls, Strategy) and not part.cls.kinds:
        findings.append(f"{part.cls.__name__}.kinds is empty: name the tasks it can learn, such as 'segmentation'")
    return findings


def _arguments(function: Any) -> list[str]:
    signs = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [signs.get(p.kind, "") + p.name for p in inspect.signature(function).parameters.values()]


def _train(method: Method) -> list[str]:
    """Train three tiny steps, looking at what each hook returns."""
    scenario = tiny_scenario(joint=method.strategy.cls.joint)  # type: ignore[attr-defined]
    strategy = tiny_strategy(method, scenario)
    _watch(strategy)
    findings: list[str] = []
    for experience in scenario.train_stream:
        step = experience.step
        before = {name: p.shape for name, p in strategy.network.heads.named_parameters()}
        reference = {name: p.detach().clone() for name, p in strategy.network.named_parameters()}
        try:
            strategy.train(experience, eval_streams=[])
        except (DenseCLError, Finding):
            raise
        except Exception as error:
            raise Finding(f"step {step}: {_where(error, method)}{type(error).__name__}: {error}") from error
        after = {name: p.shape for name, p in strategy.network.heads.named_parameters()}
        findings += [
            f"step {step}: the old head parameter {name} changed its size from {tuple(shape)} to "
            f"{tuple(after.get(name, ()))}; "
            "old outputs must stay as they are, new ones are added"
            for name, shape in before.items()
            if after.get(name) != shape
        ]
        if strategy.network.n_outputs != experience.n_outputs:
            findings.append(f"step {step}: {strategy.network.n_outputs} outputs, not {experience.n_outputs}")
        bad = [name for name, p in strategy.network.named_parameters() if not torch.isfinite(p).all()]
        if bad:
            findings.append(f"step {step}: the parameter {bad[0]} is not finite after training")
        moved = any(not torch.equal(p, reference[n]) for n, p in strategy.network.named_parameters() if n in reference)
        if step == 0 and not moved:
            findings.append("step 0: no parameter changed in training; does param_groups return what is to be trained?")
        if findings:
            break
        matrix = confusion(strategy, scenario.test, len(scenario.class_names), 4)
        if matrix.sum() == 0:
            findings.append(f"step {step}: the evaluation counted no pixel")
    return findings + _state(strategy, method)


def _watch(strategy: Strategy) -> None:
    """Wrap the hooks of one strategy so that a wrong return value is named where it arises."""

    def loss_like(name: str, value: Any) -> None:
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = (
                f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{type(value).__name__}"
            )
            raise Finding(f"{name} returned {shape}; it must return a tensor with one number, the mean over pixels")
        if not torch.isfinite(value):
            raise Finding(f"{name} is {value.item()} at step {strategy.step}: the loss must stay finite")

    def wrap(name: str, look: Any) -> None:
        function = getattr(strategy, name)

        def watched(*arguments: Any, **keywords: Any) -> Any:
            value = function(*arguments, **keywords)
            look(value, *arguments)
            return value

        setattr(strategy, name, watched)

    def batch_like(value: Any, batch: Batch, _teacher: Output | None) -> None:
        if not isinstance(value, Batch):
            raise Finding(f"prepare_batch returned {type(value).__name__}; it must return a Batch")
        if value.target.shape[0] != batch.target.shape[0] or value.target.dtype != batch.target.dtype:
            raise Finding("prepare_batch changed the number or the type of the targets")

    def labels_like(value: Any, output: Output) -> None:
        wanted = (output.logits.shape[0], *output.logits.shape[2:])
        if not isinstance(value, Tensor) or tuple(value.shape) != wanted:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise Finding(f"predict returned {shape}; it must return labels of shape (B, H, W) = {wanted}")

    for name in ("pixel_loss", "task_loss"):
        wrap(name, lambda value, *_a, _name=name: loss_like(_name, value))
    if type(strategy).regulariser is not Strategy.regulariser:
        wrap("regulariser", lambda value, *_a: loss_like("regulariser", value))
    for plugin in strategy.dense_plugins:
        loss = plugin.loss

        def watched(*arguments: Any, _loss: Any = loss, _name: str = plugin.name) -> Any:
            value = _loss(*arguments)
            if value is not None:
                loss_like(f"{_name}.loss", value)
            return value

        plugin.loss = watched  # type: ignore[method-assign]
    wrap("prepare_batch", batch_like)
    wrap("predict", labels_like)
    _watch_heads(strategy)


def _watch_heads(strategy: Strategy) -> None:
    build = strategy.build_head

    def watched(channels: int, outputs: int) -> nn.Module:
        head = build(channels, outputs)
        with torch.no_grad():
            shape = tuple(head(torch.zeros(2, channels, 4, 4)).shape)
        if shape != (2, outputs, 4, 4):
            raise Finding(
                f"build_head({channels}, {outputs}) makes a head that turns (2, {channels}, 4, 4) into {shape}; "
                f"it must give {outputs} outputs: (2, {outputs}, 4, 4)"
            )
        return head

    strategy.build_head = watched  # type: ignore[method-assign]


def _state(strategy: Strategy, method: Method) -> list[str]:
    """A state must survive being saved and loaded."""
    findings = []
    for name, owner in [(method.strategy.name, strategy), *((p.name, p) for p in strategy.dense_plugins)]:
        state = owner.state_dict()
        if not isinstance(state, dict):
            findings.append(f"{name}.state_dict returned {type(state).__name__}; it must return a dict")
            continue
        wrong = _unsafe(state)
        if wrong:
            findings.append(
                f"{name}.state_dict holds {wrong}: only tensors, numbers, strings and containers can be saved"
            )
        else:
            owner.load_state_dict(state)
    return findings


def _unsafe(value: Any) -> str:
    """The first type in a state that cannot be saved safely."""
    if isinstance(value, dict):
        return next((bad for item in (*value, *value.values()) if (bad := _unsafe(item))), "")
    if isinstance(value, list | tuple | set):
        return next((bad for item in value if (bad := _unsafe(item))), "")
    return "" if value is None or isinstance(value, Tensor | bool | int | float | str) else f"a {type(value).__name__}"


def _shared(method: Method) -> list[str]:
    """`first_step = "shared"` promises that step 0 is plain cross-entropy training: compare with fine-tuning."""

    class Plain(Strategy):
        def pixel_loss(self, logits: Tensor, batch: Batch) -> Tensor:
            return cross_entropy(logits, batch.target, weight=batch.weight)

    states = []
    for strategy_part in (method.strategy, replace(method.strategy, cls=Plain, values={}, recipe=None)):
        scenario = tiny_scenario()
        strategy = tiny_strategy(Method(strategy_part, ()), scenario)
        strategy.train(scenario.train_stream[0], eval_streams=[])
        states.append(strategy.network.state_dict())
    mine, plain = states
    if mine.keys() == plain.keys() and all(torch.equal(mine[key], plain[key]) for key in plain):
        return []
    return [
        f'{method.strategy.name} says first_step = "shared", but its step 0 is not plain cross-entropy training: '
        'its weights differ from it; let step 0 be plain, or write first_step = "own"'
    ]


def _where(error: Exception, method: Method) -> str:
    """'in mine.py:12, ' for the deepest line of the traceback in a user's file."""
    files = {inspect.getfile(part.cls) for part in (method.strategy, *method.plugins)}
    where, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name in files:
            where = f"in {Path(name).name}:{trace.tb_lineno}, "
        trace = trace.tb_next
    return where


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """One thread: tiny tensors are slower with more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
