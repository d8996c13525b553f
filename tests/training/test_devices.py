"""Memory format, deterministic mode, mixed precision and compilation change speed, not what is learnt."""

import pytest
import torch

from densecl.check.tiny import TRAINING, tiny_loop, tiny_network, tiny_scenario
from densecl.errors import RunError, SettingError
from densecl.runner.methods import parse_method


def weights(network=None, **changes):
    scenario = tiny_scenario()
    training = TRAINING.model_copy(update=changes)
    loop = tiny_loop(parse_method("mib"), scenario, network or tiny_network(), training)
    for experience in scenario.experiences[:2]:
        loop.train([experience])
    return loop.network.state_dict()


def small_network():
    """Compiling takes most of the time."""
    return tiny_network("unet", width=2, depth=1, norm="batch")


@pytest.fixture
def _deterministic_again():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_deterministic_again")
@pytest.mark.parametrize(
    ("changes", "tolerance"),
    # AdamW makes a step of the rate of a gradient that is all rounding: 16 iterations of 1e-3 may differ by twice that
    [({"deterministic": True}, 0), ({"channels_last": True}, 3.2e-2), ({"precision": "bf16"}, 0.3)],
)
def test_a_setting_of_speed_gives_nearly_the_same_weights(changes, tolerance):
    plain, other = weights(), weights(**changes)
    assert plain.keys() == other.keys()
    for key, value in plain.items():
        if value.is_floating_point():
            assert other[key].dtype == value.dtype
            torch.testing.assert_close(other[key], value, rtol=tolerance, atol=tolerance)


def test_compilation_keeps_names_and_values(monkeypatch):
    """With the graphs of both passes, as the default has them, but without a minute of a C++ compiler."""
    compile_, compiled_parts = torch.compile, []

    def traced(part, **options):
        compiled_parts.append(part)
        return compile_(part, **{**options, "backend": "aot_eager"})

    monkeypatch.setattr(torch, "compile", traced)
    changes = {"iterations": 2, "augmentation": "none"}
    plain = weights(small_network(), **changes)
    assert not compiled_parts
    compiled = weights(small_network(), **changes, compile=True)
    assert compiled_parts
    assert plain.keys() == compiled.keys()
    for key, value in plain.items():
        torch.testing.assert_close(compiled[key], value, rtol=1e-2, atol=1e-2)


class Terms:
    """Hears the loss terms of each iteration."""

    def __init__(self):
        self.heard = []

    def step_started(self, *_): ...

    def epoch_finished(self, *_): ...

    def iteration(self, _epoch, _iteration, terms, *_):
        self.heard.append({name: float(term.detach()) for name, term in terms.items()})


@pytest.fixture
def graphs(monkeypatch):
    """Compiling without a C++ compiler; the number of graphs made so far is its length."""
    made = []

    def backend(graph, _inputs):
        made.append(graph)
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend=backend))
    yield made
    torch.compiler.reset()


@pytest.mark.parametrize("method", ["mib", "ilt"])
def test_compiled_losses_are_the_same_as_those_that_are_not(graphs, method):
    terms = []
    for compiled in (False, True):
        training = TRAINING.model_copy(update={"iterations": 2, "compile": compiled})
        loop = tiny_loop(parse_method(method), tiny_scenario(), small_network(), training)
        loop.events, loop.compiles_losses = Terms(), compiled
        for experience in loop.scenario.experiences[:2]:
            loop.train([experience])
        terms.append(loop.events.heard)
    assert len(graphs) >= 5  # network and loss of step 0; those and the regulariser of step 1
    assert terms[1][2].keys() >= {"task", "regulariser"}
    for plain, fused in zip(*terms, strict=True):
        assert fused == pytest.approx(plain, rel=2e-3)


def test_a_stream_of_more_steps_than_torch_compiles_graphs_for_is_compiled_to_its_end(graphs):
    names = ("recompile_limit", "cache_size_limit")  # the second in older versions
    limit = next(name for name in names if hasattr(torch._dynamo.config, name))
    training = TRAINING.model_copy(update={"iterations": 1, "compile": True})
    loop = tiny_loop(parse_method("finetune"), tiny_scenario(), small_network(), training)
    with torch._dynamo.config.patch({limit: 1}):
        for step, experience in enumerate(loop.scenario.experiences):
            loop.train([experience])
            assert len(graphs) == step + 1


def test_fp16_is_refused_without_a_gpu():
    with pytest.raises(SettingError, match="fp16 needs a CUDA device"):
        weights(precision="fp16")


@pytest.mark.parametrize(("overflowing", "raises"), [(range(2, 6), False), (range(2, 40), True)])
def test_an_overflow_that_the_scaler_skips_is_not_taken_for_a_loss_that_diverges(overflowing, raises):
    scenario = tiny_scenario()
    training = TRAINING.model_copy(update={"iterations": 48})
    loop = tiny_loop(parse_method("lwf"), scenario, tiny_network(), training)
    loop.train([scenario.experiences[0]])
    loop.precision.scaler = torch.amp.GradScaler("cpu")  # as fp16 has on a GPU
    regulariser = loop.strategy.regulariser

    def sometimes_too_large(*arguments):
        return regulariser(*arguments) * (float("inf") if loop.iterations in overflowing else 1)

    loop.strategy.regulariser = sometimes_too_large
    if raises:
        with pytest.raises(RunError, match=r"iteration 21: regulariser is nan or infinite"):
            loop.train([scenario.experiences[1]])
    else:
        loop.train([scenario.experiences[1]])
        assert all(torch.isfinite(p).all() for p in loop.network.parameters())
