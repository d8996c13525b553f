"""Autoencoding with a critic."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from densecl.errors import UnknownNameError
from densecl.losses import deception_loss
from densecl.models.patchgan import initialised
from densecl.tasks.autoencoding import Autoencoding


class Targets(NamedTuple):
    target: Tensor
    weight: Tensor | None = None


def critical(seed=0):
    return Autoencoding("a", loss="adversarial", critic=initialised(seed, width=8, strided=2))


def real_and_made(n=6, side=24):
    """Smooth images and noise."""
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(n, 3, side // 8, side // 8, generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return real, torch.randn(n, 3, side, side, generator=generator)


def test_the_loss_is_pix2pixs():
    task = critical()
    real, made = real_and_made()
    expected = 100 * (made - real).abs().mean() + deception_loss(task.critic(made)).mean()
    torch.testing.assert_close(task.loss(made, Targets(real)), expected.detach())
    assert task.settings == {"reconstruction": "l1", "reconstruction_weight": 100.0, "adversarial_weight": 1.0}


def test_the_critic_learns_to_tell_made_from_real():
    task = critical()
    real, made = real_and_made()
    for _ in range(30):
        task.update_critic(made.requires_grad_(), Targets(real))
    with torch.no_grad():
        assert task.critic(real).mean() > task.critic(made).mean() + 0.5
    assert made.grad is None  # the network that made them is left alone


def test_a_critic_shared_by_processes_learns_what_one_alone_does():
    """Two shares of a batch, whose gradients are summed before the update."""
    alone, one, two = critical(), critical(), critical()
    real, made = real_and_made()
    gradients = []

    def collect(parameters):
        gradients.append([p.grad.clone() for p in parameters])

    def add(parameters):
        for parameter, other in zip(parameters, gradients[0], strict=True):
            parameter.grad += other

    alone.update_critic(made, Targets(real))
    one.update_critic(made[:2], Targets(real[:2]), share=2 / 6, reduce=collect)
    two.update_critic(made[2:], Targets(real[2:]), share=4 / 6, reduce=add)
    assert alone.critic is not None
    assert two.critic is not None
    for a, b in zip(alone.critic.parameters(), two.critic.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)


def test_the_loss_moves_the_outputs_and_not_the_critic():
    task = critical()
    real, made = real_and_made()
    before = [p.clone() for p in task.critic.parameters()]
    task.loss(made.requires_grad_(), Targets(made.detach())).backward()  # perfect: the critic's term alone remains
    assert made.grad is not None
    assert made.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in task.critic.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, task.critic.parameters(), strict=True))
    del real


def test_a_resumed_critic_goes_on_with_the_same_bits(tmp_path):
    whole, first, second = critical(), critical(), critical(seed=9)
    real, made = real_and_made()
    for _ in range(6):
        whole.update_critic(made, Targets(real))
    for _ in range(3):
        first.update_critic(made, Targets(real))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(3):
        second.update_critic(made, Targets(real))
    assert whole.critic is not None
    assert second.critic is not None
    for a, b in zip(whole.critic.parameters(), second.critic.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_task_without_critic_has_no_state():
    task = Autoencoding("a")
    real, made = real_and_made()
    task.update_critic(made, Targets(real))
    assert task.state_dict() == {}


def test_what_is_refused():
    with pytest.raises(UnknownNameError, match="loss of autoencoding 'l3'"):
        Autoencoding("a", loss="l3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a critic"):
        Autoencoding("a", loss="adversarial")
    with pytest.raises(ValueError, match="has no use for a critic"):
        Autoencoding("a", loss="l1", critic=initialised(0, width=4))
