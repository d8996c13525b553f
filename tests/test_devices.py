"""Memory format, deterministic mode, mixed precision and compilation change speed, not what is learnt."""

import shutil

import pytest
import torch

from densecl.errors import RunError, SettingError
from densecl.runner.methods import parse_method
from densecl.runner.tiny import TRAINING, tiny_network, tiny_scenario, tiny_strategy


def weights(network=None, **changes):
    scenario = tiny_scenario()
    training = TRAINING.model_copy(update=changes)
    strategy = tiny_strategy(parse_method("mib"), scenario, network or tiny_network(), training)
    for experience in list(scenario.train_stream)[:2]:
        strategy.train(experience, eval_streams=[])
    return strategy.network.state_dict()


@pytest.fixture
def _deterministic_again():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_deterministic_again")
@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [({"deterministic": True}, 0), ({"channels_last": True}, 1e-2), ({"precision": "bf16"}, 0.3)],
)
def test_a_setting_of_speed_gives_nearly_the_same_weights(changes, tolerance):
    plain, other = weights(), weights(**changes)
    assert plain.keys() == other.keys()
    for key, value in plain.items():
        if value.is_floating_point():
            assert other[key].dtype == value.dtype
            torch.testing.assert_close(other[key], value, rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_compilation_keeps_names_and_values():
    changes = {"iterations": 2, "augmentation": "none"}
    small = {"width": 2, "depth": 1, "norm": "batch"}  # compiling takes most of the time
    plain = weights(tiny_network("unet", **small), **changes)
    compiled = weights(tiny_network("unet", **small), **changes, compile=True)
    assert plain.keys() == compiled.keys()
    for key, value in plain.items():
        torch.testing.assert_close(compiled[key], value, rtol=1e-2, atol=1e-2)


def test_fp16_is_refused_without_a_gpu():
    with pytest.raises(SettingError, match="fp16 needs a CUDA device"):
        weights(precision="fp16")


@pytest.mark.parametrize(("overflowing", "raises"), [(range(2, 6), False), (range(2, 40), True)])
def test_an_overflow_that_the_scaler_skips_is_not_taken_for_a_loss_that_diverges(overflowing, raises):
    scenario = tiny_scenario()
    training = TRAINING.model_copy(update={"iterations": 48})
    strategy = tiny_strategy(parse_method("lwf"), scenario, tiny_network(), training)
    strategy.train(scenario.train_stream[0], eval_streams=[])
    strategy.precision.scaler = torch.amp.GradScaler("cpu")  # as fp16 has on a GPU
    regulariser = strategy.regulariser

    def sometimes_too_large(*arguments):
        return regulariser(*arguments) * (float("inf") if strategy.iterations in overflowing else 1)

    strategy.regulariser = sometimes_too_large
    if raises:
        with pytest.raises(RunError, match=r"iteration 21: regulariser is nan or infinite"):
            strategy.train(scenario.train_stream[1], eval_streams=[])
    else:
        strategy.train(scenario.train_stream[1], eval_streams=[])
        assert all(torch.isfinite(p).all() for p in strategy.network.parameters())
