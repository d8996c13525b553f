"""Memory format, deterministic mode, mixed precision and compilation change speed, not what is learnt."""

import shutil

import pytest
import torch

from densecl.errors import SettingError
from densecl.runner.check import TRAINING, tiny_network, tiny_scenario, tiny_strategy
from densecl.runner.methods import parse_method


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
