"""Try a method on a tiny stream: `densecl check mine.py:Mine`."""

import inspect
from contextlib import AbstractContextManager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densecl.check.findings import added_to, described, trying
from densecl.check.plain import WEIGHTED, plain_part
from densecl.check.resume import Stop, check_resume
from densecl.check.tiny import tiny_backbone, tiny_loop, tiny_stream
from densecl.check.watch import watch
from densecl.errors import DenseCLError, SettingError
from densecl.runner.cost import computing_with
from densecl.runner.evaluation import evaluate
from densecl.runner.methods import Method, Part, parse_method
from densecl.settings.arguments import hyperparameters, resolve
from densecl.strategies.base import Plugin, Strategy
from densecl.streams.scenario import Experience
from densecl.tensors import same_tensors
from densecl.training.loop import Loop

VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_method(text: str, catalogue: Path | None = None) -> list[str]:
    """Find what is wrong with a strategy or a plugin, in words."""
    method = _method(text, catalogue)
    if findings := [finding for part in method.parts if not part.stock for finding in _static(part)]:
        return findings
    for part in method.parts:
        part.resolved()  # values in the text that do not fit are no fault of the method
    with computing_with(1), added_to(findings):  # tiny tensors are slower with more threads
        findings += _train(method) or _shared(method)
    return list(dict.fromkeys(findings))


def _method(text: str, catalogue: Path | None) -> Method:
    """Parse the text; a plugin alone is tried on fine-tuning."""
    try:
        return parse_method(text, catalogue)
    except DenseCLError as error:
        if "only plugins" not in str(error):
            raise
        return parse_method(f"finetune+{text}", catalogue)


def _trying(stage: str, method: Method) -> AbstractContextManager[None]:
    return trying(stage, *(part.cls for part in method.parts))


def _static(part: Part) -> list[str]:
    """Find faults without training."""
    base = Strategy if issubclass(part.cls, Strategy) else Plugin
    findings = []
    for cls in (cls for cls in part.cls.__mro__ if cls is not base and issubclass(cls, base)):
        findings += [*_attributes(cls, base), *_hooks(cls, base)]
    if not findings:
        try:
            defaults = {key: default for key, (_, default) in hyperparameters(part.cls, base).items()}
            resolve(part.cls, base, defaults, part.cls.__name__)
        except SettingError as error:
            findings.append(f"a hyper-parameter that does not fit: {error}")
    if part.cls.first_step not in ("own", "shared"):  # type: ignore[attr-defined]
        findings.append(f'{part.cls.__name__}.first_step is {part.cls.first_step!r}: write "own" or "shared"')  # type: ignore[attr-defined]
    if issubclass(part.cls, Strategy) and not part.cls.kinds:
        findings.append(f"{part.cls.__name__}.kinds is empty: name the tasks it can learn, such as 'segmentation'")
    return findings


def _attributes(cls: type, base: type) -> list[str]:
    """Find class attributes that look like hyper-parameters and are none."""
    annotated = vars(cls).get("__annotations__", {})
    findings = []
    for name, value in vars(cls).items():
        plain = isinstance(value, bool | int | float | str | tuple) and not name.isupper()  # capitals: a constant
        if plain and not name.startswith("_") and name not in annotated and not hasattr(base, name):
            findings.append(
                f"{cls.__name__}.{name} has no annotation, so it is not a hyper-parameter: write "
                f"'{name}: {type(value).__name__} = {value!r}'"
            )
    bare = [name for name in annotated if name not in vars(cls) and not name.startswith("_")]
    return findings + [f"{cls.__name__}.{name} has no default value: every hyper-parameter needs one" for name in bare]


def _hooks(cls: type, base: type) -> list[str]:
    """Find hooks whose signature does not fit, and methods that were perhaps meant to be hooks."""
    functions = {name: value for name, value in vars(cls).items() if inspect.isfunction(value)}
    called = {name for function in functions.values() for name in function.__code__.co_names}
    hooks = [name for name, value in vars(base).items() if inspect.isfunction(value) and not name.startswith("_")]
    findings = []
    for name, function in functions.items():
        theirs = getattr(base, name, None)
        if inspect.isfunction(theirs) and name != "__init__":
            wanted = [p.name for p in inspect.signature(theirs).parameters.values() if p.kind not in VARIABLE]
            signature = inspect.signature(function)
            try:
                signature.bind(*wanted)
            except TypeError:
                findings.append(f"{cls.__name__}.{name}{signature} must be callable as {name}({', '.join(wanted)})")
        elif theirs is None and not name.startswith("_") and name not in called:
            near = get_close_matches(name, hooks, n=1, cutoff=0.85)
            findings += [f"{cls.__name__}.{name} is no hook and nothing calls it: did you mean {n}?" for n in near]
    return findings


def _train(method: Method) -> list[str]:
    """Train three tiny steps, looking at what each hook returns."""
    scenario = tiny_stream(method)
    with _trying("making it", method):
        loop = tiny_loop(method, scenario)
    watch(loop)
    stop = Stop(loop)
    for experience in scenario.experiences:
        step = experience.step
        before = {name: p.detach().clone() for name, p in loop.network.named_parameters()}
        with _trying(f"step {step}", method):
            loop.train([experience])
        if findings := _trained(loop, experience, before):
            return [f"step {step}: {finding}" for finding in findings]
        stop.step_finished()
        with _trying(f"evaluation of step {step}", method):
            evaluations = evaluate(loop, step, 4)
        if not any(map(sum, evaluations[-1].confusion or [[1]])):
            return [f"step {step}: the evaluation counted no pixel"]
    return _state(loop, method) or (check_resume(method, scenario, stop) if method.resumable else [])


def _trained(loop: Loop, experience: Experience, before: dict[str, Tensor]) -> list[str]:
    """Look at what a step must leave behind."""
    findings, parameters = [], dict(loop.network.named_parameters())
    if loop.network.n_outputs != experience.n_outputs:
        findings.append(f"the network has {loop.network.n_outputs} outputs, not {experience.n_outputs}")
    if bad := [name for name, p in parameters.items() if not torch.isfinite(p).all()]:
        findings.append(f"the parameter {bad[0]} is not finite after training")
    still = all(name in parameters and torch.equal(parameters[name], p) for name, p in before.items())
    if experience.step == 0 and still:
        findings.append("no parameter changed in training; does param_groups return what is to be trained?")
    return findings


def _state(loop: Loop, method: Method) -> list[str]:
    """Check that states survive being saved and loaded."""
    findings = []
    for name, owner in [(method.strategy.name, loop.strategy), *((p.name, p) for p in loop.plugins)]:
        with _trying(f"{name}.state_dict", method):
            state = owner.state_dict()
        if not isinstance(state, dict):
            findings.append(f"{name}.state_dict returned {described(state)}; it must return a dict")
        elif wrong := _unsafe(state):
            allowed = "only tensors, numbers, strings and containers can be saved"
            findings.append(f"{name}.state_dict holds {wrong}: {allowed}")
        else:
            with _trying(f"{name}.load_state_dict", method):
                owner.load_state_dict(state)
    return findings


def _unsafe(value: Any) -> str:
    """Name the first type in a state that cannot be saved safely."""
    if isinstance(value, dict | list | tuple | set):
        items = (*value, *value.values()) if isinstance(value, dict) else value
        return next((bad for item in items if (bad := _unsafe(item))), "")
    return "" if value is None or isinstance(value, Tensor | bool | int | float | str) else described(value)


def _shared(method: Method) -> list[str]:
    """Compare step 0 with plain cross-entropy training, which `first_step = "shared"` promises."""
    plain = plain_part(method.strategy)
    claims = [(method.strategy, Method(method.strategy, ()))]
    base = method.strategy if method.strategy.cls.first_step == "shared" else plain  # type: ignore[attr-defined]
    claims += [(part, Method(base, (part,))) for part in method.plugins if not part.stock]
    claims = [(part, tried) for part, tried in claims if part.cls.first_step == "shared"]  # type: ignore[attr-defined]
    if not claims:
        return []
    kind = "classes" if "classes" in method.strategy.cls.streams else "tasks"  # type: ignore[attr-defined]
    wanted = _after_step_0(Method(plain, ()), kind, method)
    return [
        f'{part.name} says first_step = "shared", but its step 0 is not plain cross-entropy training: '
        'its weights differ from it; let step 0 be plain, or write first_step = "own"'
        for part, tried in claims
        if not same_tensors(_after_step_0(tried, kind, method), wanted)
    ]


def _after_step_0(method: Method, kind: str, whole: Method) -> dict[str, Tensor]:
    scenario = tiny_stream(whole, kind)
    loop = tiny_loop(method, scenario, tiny_backbone(whole), WEIGHTED)
    with _trying("step 0", method):
        loop.train(scenario.experiences[:1])
    return loop.network.state_dict()
