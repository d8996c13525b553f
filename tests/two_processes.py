"""Trains methods on the tiny stream and writes what each process saw; run by torchrun, and by one process to compare.

torchrun --nproc-per-node=2 tests/two_processes.py FOLDER METHOD...
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from densecl.recipe import LaterSettings
from densecl.runner.evaluation import confusion
from densecl.runner.methods import parse_method
from densecl.runner.tiny import TRAINING, tiny_network, tiny_scenario, tiny_strategy
from densecl.streams.samples import UNCOUNTED
from densecl.training import distributed

SETTINGS = TRAINING.model_copy(update={"optimizer": "sgd", "lr": 0.02, "later": LaterSettings(lr=0.02)})


class Losses:
    """The loop's events: keeps every iteration's loss, of all processes together."""

    def __init__(self):
        self.values = []

    def step_started(self, step, epochs, iterations):
        """Nothing to keep."""

    def iteration(self, epoch, iteration, loss_terms, samples):
        """Keep the sum of the terms."""
        self.values.append(float(sum(term.detach() for term in loss_terms.values())))


def still(strategy):
    """Training with all statistics of BatchNorm fixed, so that two processes can do the sums of one."""

    def train_mode():
        strategy.network.train()
        for module in strategy.network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()

    strategy.train_mode = train_mode


def train(method, folder):
    """Train one method; write its losses, samples, fingerprints of the weights, confusion matrices and last weights."""
    parsed = parse_method(method)
    scenario = tiny_scenario(joint=parsed.strategy.cls.joint)
    strategy = tiny_strategy(parsed, scenario, tiny_network(), SETTINGS)
    strategy.events = losses = Losses()
    still(strategy)
    seen, weights, matrices = [], [], []
    unpack = strategy._unpack_minibatch

    def look():
        unpack()
        batch = strategy.mbatch
        own, counted = batch.step == strategy.step, batch.index != UNCOUNTED
        indices = (batch.index[own & counted].tolist(), batch.index[~own & counted].tolist())
        seen.append([strategy.step, strategy.epoch, *indices])

    strategy._unpack_minibatch = look
    for experience in scenario.train_stream:
        strategy.train(experience, eval_streams=[])
        content = b"".join(t.numpy().tobytes() for t in strategy.network.state_dict().values())
        weights.append(hashlib.sha256(content).hexdigest())
        matrices.append(confusion(strategy, scenario.test, len(scenario.class_names), 3).tolist())
    name = f"{method}-{distributed.rank()}of{distributed.world()}"
    found = {"losses": losses.values, "seen": seen, "weights": weights, "matrices": matrices}
    (folder / f"{name}.json").write_text(json.dumps(found))
    torch.save(strategy.network.state_dict(), folder / f"{name}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.join()
    for each in sys.argv[2:]:
        train(each, Path(sys.argv[1]))
    distributed.leave()
