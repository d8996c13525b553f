"""Fusion of two networks' weights against NumPy in float64."""

import numpy as np
import pytest
import torch

from densecl.strategies.ewf import fuse, share


def states(seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """State dicts of a network before and after a step that gave it a head."""
    rng = np.random.default_rng(seed)
    previous = {name: torch.tensor(rng.normal(size=(3, 4))) for name in ("weight", "running_var", "gone")}
    current = {name: torch.tensor(rng.normal(size=(3, 4))) for name in ("weight", "running_var", "new head")}
    previous["num_batches_tracked"], current["num_batches_tracked"] = torch.tensor(5), torch.tensor(9)
    return previous, current


@pytest.mark.parametrize(("n_new", "n_old", "expected"), [(1, 16, 0.24253562503633297), (5, 11, 0.5590169943749475)])
def test_the_share_is_the_root_of_the_new_outputs_part(n_new, n_old, expected):
    assert share(n_new, n_old) == pytest.approx(expected, rel=1e-15)  # sqrt(1 / 17), sqrt(5 / 16) by hand


def test_no_new_output_and_no_old_one_are_the_endpoints():
    assert share(0, 5) == 0
    assert share(5, 0) == 1


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.9])
def test_floats_of_both_are_fused_and_all_else_is_the_new_ones(alpha):
    previous, current = states()
    fused = fuse(previous, current, alpha)
    assert list(fused) == list(current)
    for name in ("weight", "running_var"):
        expected = (1 - alpha) * previous[name].numpy() + alpha * current[name].numpy()
        np.testing.assert_allclose(fused[name].numpy(), expected, rtol=1e-14, atol=1e-15)
    assert fused["new head"].equal(current["new head"])
    assert fused["num_batches_tracked"].item() == 9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_shares_0_and_1_are_the_endpoints_bit_for_bit(dtype):
    previous, current = (
        {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
        for state in states()
    )
    for name in ("weight", "running_var"):
        assert fuse(previous, current, 0.0)[name].equal(previous[name])
        assert fuse(previous, current, 1.0)[name].equal(current[name])
        assert fuse(previous, current, 0.3)[name].dtype == dtype


def test_half_precision_is_fused_in_float32():
    previous, current = {"w": torch.tensor([1.0]).bfloat16()}, {"w": torch.tensor([1.0078125]).bfloat16()}
    for alpha in (0.4, 0.6):  # rounded once, to the nearer neighbour
        assert fuse(previous, current, alpha)["w"].equal((previous if alpha < 0.5 else current)["w"])


def test_inputs_are_not_changed_nor_shared():
    previous, current = states()
    before = [{name: value.clone() for name, value in state.items()} for state in (previous, current)]
    for value in fuse(previous, current, 0.5).values():
        value.zero_()
    for state, copy in zip((previous, current), before, strict=True):
        assert all(state[name].equal(copy[name]) for name in copy)


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match="'w' was \\(2,\\) and is \\(3,\\) now"):
        fuse({"w": torch.zeros(2)}, {"w": torch.zeros(3)}, 0.5)
