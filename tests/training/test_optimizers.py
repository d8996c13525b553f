"""Optimisers without torch's compiler compute what torch's own do."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from densecl import optimizers


def trained(cls, **options):
    """Weights after six steps, three of them by a second optimiser that took over the first one's state."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    optimizer, state = cls(network.parameters(), **options), None
    for _ in range(2):
        if state is not None:
            optimizer = cls(network.parameters(), **options)
            optimizer.load_state_dict(state)
        schedule = LambdaLR(optimizer, lambda i: 1 - i / 10)
        for _ in range(3):
            optimizer.zero_grad()
            network(torch.randn(2, 3, 8, 8)).square().mean().backward()
            optimizer.step()
            schedule.step()
        state = optimizer.state_dict()
    return list(network.parameters())


@pytest.mark.parametrize(("name", "options"), [
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}), ("Adam", {"betas": (0.5, 0.9)}),
    ("AdamW", {"fused": True}),
])  # fmt: skip
def test_bits_are_those_of_torch(name, options):
    ours = trained(getattr(optimizers, name), lr=0.1, **options)
    torchs = trained(getattr(torch.optim, name), lr=0.1, **options)
    assert all(map(torch.equal, ours, torchs))


def test_a_step_and_its_images_import_neither_compiler_nor_torchvision():
    lines = (
        "import sys, torch",
        "from densecl.data.transforms import augmentation",
        "from densecl.optimizers import SGD",
        "import numpy as np",
        "image, mask = torch.zeros(3, 40, 50, dtype=torch.uint8), torch.zeros(40, 50, dtype=torch.uint8)",
        "for name in ('reference', 'rescale', 'none'):",
        "    assert augmentation(name, 16)(image, mask, np.random.default_rng(0))[0].shape == (3, 16, 16)",
        "x = torch.zeros(2, requires_grad=True)",
        "optimizer = SGD([x], 0.1, momentum=0.9)",
        "x.sum().backward()",
        "optimizer.step()",
        "assert x.tolist() != [0, 0]",
        "print({'torch._dynamo', 'torchvision', 'sympy'} & set(sys.modules))",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
