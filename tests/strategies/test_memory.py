"""The memory of real images: which are kept, how they enter batches, what labels they carry, what is recorded."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from densecl.check.tiny import TinyImages, tiny_loop, tiny_network, tiny_scenario, tiny_sequence
from densecl.errors import SettingError
from densecl.losses import exemplar_cross_entropy, unbiased_cross_entropy
from densecl.runner.methods import parse_method
from densecl.strategies.tools import memory as room
from densecl.strategies.tools.memory import Memory
from trained_loops import trained

pytestmark = pytest.mark.usefixtures("one_thread")
POLICIES = ("shares", "random", "balanced", "greedy")


def made(text, steps=3, **changes):
    return trained(text, steps, **changes)


def next_batch(loop, step):
    loop.begin(loop.scenario.experiences[step])
    return loop.prepared(next(iter(loop.loader)), loop.task)


# ---- which images are kept


@pytest.mark.parametrize("policy", POLICIES)
def test_a_memory_is_full_holds_each_image_once_and_comes_back_from_its_state(policy):
    loop = made(f"mib+replay(memory=10,policy={policy})")
    kept = loop.plugins[0].kept
    assert (len(kept.keys) == 10) or policy == "shares"
    assert len(kept.keys) <= 10
    assert len(set(kept.keys)) == len(kept.keys)
    for step, position in kept.keys:
        assert 0 <= position < len(loop.scenario.experiences[step].presence)
    again = Memory(10, policy)
    again.load_state_dict(kept.state_dict())
    assert (again.keys, again.stored, again.of) == (kept.keys, kept.stored, kept.of)
    # the tiny images name one file for image and mask each
    assert kept.stored_bytes(loop.strategy) == len(kept.keys) * 2 * Path(TinyImages(1, 0).image_files[0]).stat().st_size


@pytest.mark.parametrize("policy", POLICIES)
def test_another_seed_keeps_other_images(policy):
    chosen = []
    for seed in (0, 1):
        loop = tiny_loop(parse_method(f"finetune+replay(memory=6,policy={policy})"), tiny_scenario(), seed=seed)
        loop.train(loop.scenario.experiences[:1])
        chosen.append(loop.plugins[0].kept.keys)
    assert chosen[0] != chosen[1]


def test_a_random_memory_is_a_uniform_sample_of_all_images_so_far():
    """Each image of each step is kept as often as any other, over many seeds."""
    scenario, counts, tries, size = tiny_scenario(), Counter(), 400, 8

    class Told:
        def __init__(self, seed):
            self.seed, self.scenario = seed, scenario

    for seed in range(tries):
        kept = Memory(size, "random")
        for experience in scenario.experiences:
            kept.update(Told(seed), experience)
        assert len(kept.keys) == size
        counts.update(kept.keys)
    images = sum(len(experience.presence) for experience in scenario.experiences)
    wanted = tries * size / images
    shares = np.array(list(counts.values())) / wanted
    assert len(counts) == images
    assert shares.std() < 1.5 / np.sqrt(wanted)  # a binomial count has a deviation of about 1 / sqrt(its mean)


def told(presence, step=0):
    """A strategy and an experience as `Memory.update` needs them, for images with these labels."""

    class Experience:
        new_classes = tuple(sorted({label for labels in presence for label in labels}))

    Experience.step = step
    Experience.presence = np.zeros((len(presence), 256), dtype=bool)
    for row, labels in zip(Experience.presence, presence, strict=True):
        row[list(labels)] = True

    class Strategy:
        seed = 3

    return Strategy(), Experience()


def test_labels_take_turns_so_that_rare_ones_have_as_many_images():
    rare, common = [(2,)] * 4, [(1,)] * 40
    kept = Memory(8, "balanced")
    kept.update(*told([*common, *rare]))
    assert {label: len(keys) for label, keys in kept.stored.items()} == {1: 4, 2: 4}
    kept = Memory(12, "balanced")
    kept.update(*told([*common, *rare]))  # the rare label has no more
    assert {label: len(keys) for label, keys in kept.stored.items()} == {1: 8, 2: 4}
    kept = Memory(100, "balanced")
    kept.update(*told([*common, *rare, ()]))  # an image without a label is never kept
    assert len(kept.keys) == 44


def test_a_greedy_memory_gives_an_image_to_its_least_stored_label_and_drops_of_the_most_stored(monkeypatch):
    kept = Memory(4, "greedy")
    kept.update(*told([(1,), (1,), (1,), (1,), (1, 2), (1, 2)]))
    assert {label: len(keys) for label, keys in kept.stored.items()} == {1: 2, 2: 2}
    assert all(2 in kept.of[key] for key in kept.stored[2])
    monkeypatch.setattr(room, "sure_labels", lambda *_: {0: {1}})
    kept.update(*told([(3,), (3,)], step=1))
    assert len(kept.keys) == 4
    assert len(kept.stored[3]) + len(kept.stored[1]) + len(kept.stored[2]) == 4
    assert set(kept.of) == set(kept.keys)


def test_labels_that_the_teacher_is_sure_of_count_on_background_alone():
    loop = made("mib+replay(memory=8,policy=balanced)", steps=2)
    experience = loop.scenario.experiences[1]
    teacher = loop.teacher

    class Sure(torch.nn.Module):
        """Sees label 2 everywhere, and label 1 in the upper left corner, surely or nearly so."""

        def forward(self, image):
            logits = torch.zeros(len(image), 3, *image.shape[2:])
            logits[:, 2] = 9
            logits[:, 1, 0, 0], logits[:, 2, 0, 0] = 2, 0.0  # 0.79 of softmax
            return teacher(image)._replace(logits=logits)

    loop.teacher = Sure()
    samples = [experience.dataset[k][1] for k in range(len(experience.presence))]
    for least, expected in ((0.9, {2}), (0.7, {1, 2})):
        found = room.sure_labels(loop.strategy, experience, least)
        assert set(found) == set(range(len(samples)))
        for position, target in enumerate(samples):
            corner = {1} if int(target[0, 0]) == 0 else set()
            assert found[position] == expected & ({2} | corner)


# ---- how they enter batches


def batches_of(loop, step):
    """Keys of every batch of an epoch of a step."""
    loop.begin(loop.scenario.experiences[step])
    loop.batches.set_epoch(0)
    return list(loop.batches)


def test_half_of_each_batch_is_replaced():
    loop = made("mib+replay(memory=8,batch=half)", steps=1)
    for keys in batches_of(loop, 1):
        assert len(keys) in (5, 6, 7)
        assert sum(key.source == 0 for key in keys) == len(keys) // 2
        assert all(key.step == 1 for key in keys)


def test_joined_images_are_met_as_often_as_those_of_the_step():
    loop = made("mib+replay(memory=8,batch=joined)", steps=1)
    loop.begin(loop.scenario.experiences[1])
    n, stored, seen, sizes = len(loop.experience.images.indices), loop.plugins[0].kept.keys, Counter(), set()
    for epoch in range(300):
        loop.batches.set_epoch(epoch)
        keys = [key for batch in loop.batches for key in batch]
        sizes.add(len(keys))
        assert max(Counter(keys).values()) == 1  # an epoch draws without replacement
        seen.update((key.source, key.position) for key in keys)
    assert sizes == {n}  # as long as without
    assert len(seen) == n + len(stored)
    wanted = 300 * n / (n + len(stored))
    assert np.abs(np.array(list(seen.values())) / wanted - 1).max() < 0.35


def test_the_first_step_is_the_same_with_any_memory():
    for text in ("policy=greedy,batch=half", "policy=balanced,batch=joined", "labels=published"):
        loop, plain = made(f"mib+replay({text})", steps=1), made("mib", steps=1)
        for name, value in plain.network.state_dict().items():
            assert torch.equal(loop.network.state_dict()[name], value)


# ---- what labels they carry


@pytest.mark.parametrize(
    ("method", "labels", "shown"),
    [("mib", "stored", {0, 1, 2}), ("mib", "published", {0, 1, 2, 3}), ("dkd", "published", {0, 3})],
)
def test_replayed_images_carry_the_labels_of_their_step_or_those_that_were_published(method, labels, shown):
    loop = made(f"{method}+replay(memory=12,labels={labels},ratio=2)", steps=1)
    found, step = set(), set()
    for keys in batches_of(loop, 1):
        for key in (key for key in keys if key.source == 0):
            sample = loop.scenario.training[key]
            found |= set(sample.target.unique().tolist())
            step.add(sample.step)
    assert found - {255} == shown
    assert step == {1 if (method, labels) == ("dkd", "published") else 0}
    note = loop.notes().get("replay", {})
    assert bool(note) is (labels == "published")
    if note:
        wanted = "of the step in training" if method == "dkd" else "of all steps so far"
        assert wanted in note["leak"]


def test_the_augmented_loss_is_one_mean_in_which_an_exemplars_background_may_be_new():
    loop = made("mib+replay(memory=8,batch=half,replay_loss=augmented)", steps=1)
    batch = next_batch(loop, 1)
    logits = torch.randn(len(batch.image), 4, 32, 32, dtype=torch.float64)
    own = batch.step == 1
    assert own.any()
    assert not own.all()
    counts = [int((batch.target[part] != 255).sum()) for part in (own, ~own)]
    terms = [
        unbiased_cross_entropy(logits[own], batch.target[own], n_old=3),
        exemplar_cross_entropy(logits[~own], batch.target[~own], n_old=3),
    ]
    expected = sum(n * float(term) for n, term in zip(counts, terms, strict=True)) / sum(counts)
    assert loop.strategy.pixel_loss(logits, batch).item() == pytest.approx(expected, rel=1e-6)
    alone = batch._replace(step=torch.ones_like(batch.step))
    plain = unbiased_cross_entropy(logits, batch.target, n_old=3).item()
    assert loop.strategy.pixel_loss(logits, alone).item() == pytest.approx(plain, rel=1e-6)


def test_background_of_a_replayed_image_may_be_any_class_that_its_own_step_did_not_label():
    """Pixel by pixel, at step 2 of {1, 2}, {3}, {4}: images of step 0 hide 3 and 4, of step 1 all but 3."""
    loop = made("mib+replay(memory=12,ratio=1)", steps=2)
    batch = next_batch(loop, 2)
    assert {0, 1, 2} == set(batch.step.tolist())
    logits = torch.randn(len(batch.image), 5, 32, 32, dtype=torch.float64)
    labelled = {0: [1, 2], 1: [3], 2: [4]}
    expected = []
    for sample, target, step in zip(logits.softmax(1), batch.target, batch.step.tolist(), strict=True):
        hidden = sample[[label for label in range(5) if label not in labelled[step]]].sum(0)
        for label in [0, *labelled[step]]:
            probability = hidden if label == 0 else sample[label]
            expected += (-probability[target == label].log()).tolist()
        assert set(target.unique().tolist()) <= {0, 255, *labelled[step]}
    assert loop.strategy.pixel_loss(logits, batch).item() == pytest.approx(np.mean(expected), rel=1e-9)


# ---- refusals


@pytest.mark.parametrize("method", ["finetune", "plop", "dkd"])
def test_the_augmented_loss_is_refused_without_mib(method):
    with pytest.raises(SettingError, match=rf"replay\(replay_loss=augmented\) is a loss of mib, not of {method}"):
        made(f"{method}+replay(replay_loss=augmented)", steps=0)


@pytest.mark.parametrize("choice", ["policy=balanced", "batch=half", "labels=published"])
def test_choices_for_one_head_are_refused_on_a_sequence_of_tasks(choice):
    loop = parse_method(f"finetune+replay({choice})")
    with pytest.raises(SettingError, match=rf"replay\({choice}\) needs one head for all steps"):
        tiny_loop(loop, tiny_sequence(), tiny_network("unet", width=4, depth=2))
