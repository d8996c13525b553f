"""Plain supervised training of another network on step 0, such as a small one beside the method's own."""

import torch

from densecl.losses import cross_entropy
from densecl.models.network import Network
from densecl.seeding import seed_torch
from densecl.settings.recipe import TrainingSettings
from densecl.streams.scenario import Scenario
from densecl.training.batch import normalise
from densecl.training.loader import EpochBatches, make_loader
from densecl.training.schedule import make_optimizer, make_schedule


def train_plainly(
    network: Network, scenario: Scenario, settings: TrainingSettings, iterations: int, seed: int, device: torch.device
) -> Network:
    """Train a network in place on step 0 with cross-entropy, and return it in evaluation mode.

    Several processes train alike, each on whole batches.
    """
    network.to(device).train()
    mean, std = (part.to(device) for part in scenario.normalisation)
    batches = EpochBatches(len(scenario.experiences[0].images.indices), settings.batch, seed, step=0, rank=0, world=1)
    loader = make_loader(scenario.training, batches, 0, pin=False)
    optimizer = make_optimizer([{"params": list(network.parameters())}], settings, 0)
    schedule = make_schedule(optimizer, settings, iterations)
    done, epoch = 0, 0
    while done < iterations:
        seed_torch(seed, "plain", 0, epoch)
        batches.set_epoch(epoch, iterations - done)
        for batch in loader:
            moved = batch.to(device)
            output, target = network(normalise(moved.image, mean, std)), moved.target.long()
            optimizer.zero_grad()
            sum(cross_entropy(logits, target) for logits in (output.logits, *output.auxiliary)).backward()  # type: ignore[union-attr]
            optimizer.step()
            schedule.step()
            done += 1
        epoch += 1
    return network.eval()
