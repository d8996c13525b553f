"""Trains methods on the tiny stream in two processes, then in one to compare, and writes what each process saw.

They are forks of a server that imports everything once: each process would spend more on that than on its methods.
"""

import hashlib
import json
import multiprocessing
import os
import socket
import sys

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from densecl.check.tiny import TRAINING, tiny_backbone, tiny_loop, tiny_network, tiny_stream
from densecl.runner.evaluation import evaluate
from densecl.runner.methods import parse_method
from densecl.settings.recipe import LaterSettings
from densecl.streams.samples import UNCOUNTED
from densecl.training import distributed

SETTINGS = TRAINING.model_copy(update={"epochs": 1, "optimizer": "sgd", "lr": 0.02, "later": LaterSettings(lr=0.001)})


def trained_by_two(folder, kind, methods):
    """Train methods in two processes, then in one; `folder`, where they wrote what they saw."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["two_processes"])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    for world in (2, 1):
        processes = [
            context.Process(target=trained, args=(rank, world, port, folder, kind, methods)) for rank in range(world)
        ]
        for process in processes:
            process.start()
        for rank, process in enumerate(processes):
            process.join(900)
            process.kill()
            assert process.exitcode == 0, (folder / f"{rank}of{world}.log").read_text()[-3000:]
    return folder


def trained(rank, world, port, folder, kind, methods):
    """Train methods as one of `world` processes."""
    with (folder / f"{rank}of{world}.log").open("w") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
    os.environ |= {"DENSECL_CACHE": str(folder / "cache")}
    if world > 1:  # as torchrun sets them
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank}
        os.environ |= {name: str(value) for name, value in {**place, "LOCAL_WORLD_SIZE": world}.items()}
    torch.set_num_threads(1)
    distributed.join()
    for method in methods:
        train(method, kind, folder)
    distributed.leave()


def seen_by(folder, method):
    """Read what one process saw, then what each of two did."""
    names = ("0of1", "0of2", "1of2")
    return tuple(json.loads((folder / f"{method}-{name}.json").read_text()) for name in names)


def agree(one, both):
    """Two processes end with equal bits, share out the images of one, and have its losses; both count alike."""
    assert both[0]["weights"] == both[1]["weights"]
    # each image of an epoch is in one of them, and the replayed ones are those of one process
    assert len(one["seen"]) == len(both[0]["seen"]) == len(both[1]["seen"])
    for alone, *shares in zip(one["seen"], both[0]["seen"], both[1]["seen"], strict=True):
        assert alone[:2] == shares[0][:2] == shares[1][:2]
        for own_or_replayed in (2, 3):
            assert sorted(shares[0][own_or_replayed] + shares[1][own_or_replayed]) == sorted(alone[own_or_replayed])
    # the sums of one process, to what float32 holds
    assert one["losses"] == pytest.approx(both[0]["losses"], rel=2e-4)
    assert both[0]["losses"] == both[1]["losses"]
    assert both[0]["counted"] == both[1]["counted"]


class Losses:
    """The loop's events: keeps every iteration's loss, of all processes together."""

    def __init__(self):
        self.values = []

    def step_started(self, step, epochs, iterations, batches, done):
        """Nothing to keep."""

    def iteration(self, epoch, iteration, loss_terms, samples, rates):
        """Keep the sum of the terms."""
        self.values.append(float(sum(term.detach() for term in loss_terms.values())))

    def epoch_finished(self, epoch, iteration, loss_terms):
        """Nothing to keep."""


def still(loop):
    """Training with all statistics of BatchNorm fixed, so that two processes can do the sums of one."""

    usual = loop.strategy.train_mode

    def train_mode():
        usual()
        for module in loop.network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()

    loop.strategy.train_mode = train_mode


def network_for(parsed):
    """A network the method can use, whose normalisation can be `still`: resblock sets modes in the midst of a step."""
    if parsed.strategy.name == "decoder":
        return tiny_network("unet", width=4, depth=2)
    if parsed.strategy.name == "resblock":
        return tiny_network("resblock", width=4, blocks=1, norm="instance", head=1)
    return tiny_backbone(parsed)


def train(method, kind, folder):
    """Train one method on a stream of classes or of tasks.

    Writes its losses, samples, fingerprints of the weights, confusion matrices or scores, and last weights.
    """
    parsed = parse_method(method)
    scenario = tiny_stream(parsed, kind)
    loop = tiny_loop(parsed, scenario, network_for(parsed), SETTINGS)
    loop.events = losses = Losses()
    still(loop)
    seen, weights, matrices = [], [], []
    update = loop.update

    def look(batch):
        own, counted = batch.step == loop.step, batch.index != UNCOUNTED
        indices = (batch.index[own & counted].tolist(), batch.index[~own & counted].tolist())
        seen.append([loop.step, loop.epoch, *indices])
        update(batch)

    loop.update = look
    for experience in scenario.experiences:
        loop.train([experience])
        content = b"".join(t.numpy().tobytes() for t in loop.network.state_dict().values())
        weights.append(hashlib.sha256(content).hexdigest())
        matrices.append(counted(loop, experience.step))
    name = f"{method}-{distributed.rank()}of{distributed.world()}"
    found = {"losses": losses.values, "seen": seen, "weights": weights, "counted": matrices}
    (folder / f"{name}.json").write_text(json.dumps(found))
    torch.save(loop.network.state_dict(), folder / f"{name}.pt")


def counted(loop, step):
    """Evaluate a step: pixels by truth and prediction, of a sequence the scores of each task."""
    if loop.scenario.stream.kind == "tasks":
        return [list(found.metrics.values()) for found in evaluate(loop, step, 3)]
    return evaluate(loop, step, 3)[0].confusion
