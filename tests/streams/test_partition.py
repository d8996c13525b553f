"""The partitioned setting, label presets, and what a stream refuses."""

import itertools
import time
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_trees import presence
from densecl.errors import DenseCLError, SettingError, UnknownNameError
from densecl.metrics.iou import fold_unseen, unseen_under
from densecl.settings.recipe import SECTIONS, RunSettings, StreamSettings, build
from densecl.streams import golden, protocol

IMAGES = st.lists(st.sets(st.integers(1, 6), min_size=1), min_size=12, max_size=40)
SETS = ((1, 2, 3), (4,), (5, 6))


def by_hand(images: list[set[int]], classes: list[int], first: list[int], rank: dict[int, int]) -> dict[int, int]:
    """The rule in plain Python: `first` is the order of images that hold as many, `rank` that of equal sets."""
    size, owner = dict.fromkeys(classes, 0), {}
    for i in sorted(first, key=lambda i: len(images[i])):
        held = images[i] & set(classes)
        if held:
            owner[i] = min(held, key=lambda c: (size[c], rank[c]))
            size[owner[i]] += 1
    return owner


@given(IMAGES, st.integers(0, 5))
def test_partition_follows_the_rule(images, seed):
    rng = np.random.default_rng(seed)
    first = rng.permutation(len(images)).tolist()
    rank = dict(zip(range(1, 7), rng.permutation(6).tolist(), strict=True))
    expected = by_hand(images, list(range(1, 7)), first, rank)
    assert protocol.partition(presence(images), range(1, 7), seed).tolist() == [expected[i] for i in range(len(images))]


@given(IMAGES)
def test_partition_gives_each_image_a_class_it_holds_and_ignores_the_order_of_classes(images):
    owner = protocol.partition(presence(images), range(1, 7))
    assert all(c in held for c, held in zip(owner.tolist(), images, strict=True))
    assert owner.tolist() == protocol.partition(presence(images), (4, 2, 6, 1, 3, 5)).tolist()


def test_images_with_fewest_classes_come_first_and_go_to_the_smallest_set():
    # three images of class 1 alone, one of 2 alone; then {1, 2} twice must go to 2, and {1, 2, 3} to the empty 3
    images = [{1, 2, 3}, {1, 2}, {1}, {2}, {1, 2}, {1}, {1}]
    for seed in range(4):
        assert protocol.partition(presence(images), (1, 2, 3), seed).tolist() == [3, 2, 1, 2, 2, 1, 1]


def test_background_void_and_unknown_ids_own_nothing():
    assert protocol.partition(presence([{0, 255}, {7}, {0, 1, 255}]), (1, 2)).tolist() == [0, 0, 1]


def test_partitioned_steps_are_disjoint_cover_all_and_change_with_the_seed():
    rng = np.random.default_rng(0)
    images = [set(rng.choice(6, rng.integers(1, 4), replace=False) + 1) for _ in range(200)]
    chosen = protocol.select(presence(images), SETS, "partitioned", seed=1)
    assert sorted(np.concatenate(chosen).tolist()) == list(range(200))
    other = protocol.select(presence(images), SETS, "partitioned", seed=2)
    assert any(a.tolist() != b.tolist() for a, b in zip(chosen, other, strict=True))
    again = protocol.select(presence(images), SETS, "partitioned", seed=1)
    assert all(a.tolist() == b.tolist() for a, b in zip(chosen, again, strict=True))
    overlapped = protocol.select(presence(images), SETS, "overlapped")
    assert all(set(a) <= set(b) for a, b in zip(chosen, overlapped, strict=True))


def test_images_with_later_classes_are_counted():
    images = [{1}, {1, 4}, {4, 5}, {5}, {2, 6}]
    counts = {
        s: protocol.later_classes(presence(images), SETS, protocol.select(presence(images), SETS, s))
        for s in ("overlapped",)
    }
    assert counts["overlapped"] == (2, 1, 0)
    full = [*images, {4}]
    assert protocol.later_classes(presence(full), SETS, protocol.select(presence(full), SETS, "disjoint")) == (0, 0, 0)


def test_partitioning_ten_thousand_images_takes_no_time():
    rng = np.random.default_rng(0)
    table = rng.random((10582, 256)) < 0.08
    start = time.perf_counter()
    protocol.select(table, protocol.steps("15-1"), "partitioned")
    assert time.perf_counter() - start < 1.0


def test_seen_images_hold_a_class_learnt_by_then():
    seen = protocol.seen_images(presence([{1}, {4}, {5, 0}, {0, 255}, {6, 1}]), SETS)
    assert [s.tolist() for s in seen] == [[0, 4], [0, 1, 4], [0, 1, 2, 4]]


# label presets ------------------------------------------------------------------------------------------

# One image of a 2-1-1 stream at step 1: background, the old class 1, 2 and void; the current 3; the unseen 4.
PIXELS = np.array([[0, 1, 2], [3, 4, 255]], np.uint8)
STREAM = ((1, 2), (3,), (4,))


@pytest.mark.parametrize(
    ("preset", "training", "unseen"),
    [
        ("mib2020", [[0, 0, 0], [3, 0, 0]], "ignore"),
        ("plop2021", [[0, 0, 0], [3, 0, 255]], "background"),
        ("strict", [[0, 0, 0], [3, 0, 255]], "ignore"),
    ],
)
def test_presets_on_one_image_by_hand(preset, training, unseen):
    assert protocol.step_table(STREAM, 1, "overlapped", preset)[PIXELS].tolist() == training
    assert unseen_under(preset) == unseen
    # evaluation: the truth keeps every class, void is ignored by all presets
    truth = protocol.test_table(STREAM)[PIXELS]
    assert truth.tolist() == [[0, 1, 2], [3, 4, 255]]
    # the network says background everywhere; class 4 is not learnt yet
    matrix = np.zeros((5, 5), int)
    for label in truth[truth != 255]:
        matrix[label, 0] += 1
    folded = fold_unseen(matrix, 3, unseen_under(preset))
    assert folded[:, 0].tolist() == ([2, 1, 1, 1, 0] if unseen == "background" else [1, 1, 1, 1, 0])


def test_presets_differ_nowhere_else():
    tables = {p: protocol.step_table(STREAM, 1, "overlapped", p) for p in protocol.LABELS}
    assert (tables["plop2021"] == tables["strict"]).all()
    assert np.flatnonzero(tables["plop2021"] != tables["mib2020"]).tolist() == [255]
    last = [fold_unseen(np.eye(5, dtype=int), 4, unseen_under(p)) for p in protocol.LABELS]
    assert all((a == b).all() for a, b in itertools.pairwise(last))  # after the last step all are seen


# settings ------------------------------------------------------------------------------------------


def test_settings_know_what_the_protocol_knows():
    fields = StreamSettings.model_fields
    assert get_args(fields["setting"].annotation) == protocol.SETTINGS
    assert get_args(fields["labels"].annotation) == protocol.LABELS


@pytest.mark.parametrize(
    ("key", "value", "known"), [("setting", "partitoned", "partitioned"), ("labels", "plop", "mib2020")]
)
def test_an_unknown_setting_or_preset_is_refused_with_what_exists(key, value, known):
    with pytest.raises(SettingError, match=rf"stream\.{key}.*{value}.*{known}"):
        build(SECTIONS["stream"], {key: value}, "stream")


def test_the_protocol_refuses_unknown_names_itself():
    with pytest.raises(UnknownNameError, match=r"unknown setting 'partitoned'.*did you mean 'partitioned'"):
        protocol.select(presence([[1]]), ((1,),), "partitoned")
    for call in (unseen_under, lambda name: protocol.step_table(((1,),), 0, "overlapped", name)):
        with pytest.raises(DenseCLError, match=r"unknown label preset 'mib2021'.*did you mean 'mib2020'"):
            call("mib2021")


def test_the_partition_seed_is_recorded_where_it_decides_something():
    settings = RunSettings(benchmark="b", strategy="s", backbone="u")
    assert "partition_seed" not in settings.model_dump()["stream"]
    stream = StreamSettings(setting="partitioned", partition_seed=3)
    dumped = settings.model_copy(update={"stream": stream}).model_dump(mode="json")
    assert dumped["stream"]["partition_seed"] == 3
    assert RunSettings.model_validate(dumped).stream == stream


@pytest.mark.parametrize("setting", protocol.SETTINGS)
def test_a_step_without_image_is_refused_in_every_setting(setting):
    with pytest.raises(SettingError, match=rf"step 1 \(classes 4\) has no image in the {setting}"):
        protocol.select(presence([{1}, {2}, {3, 5}, {6}]), SETS, setting)


def test_each_class_that_an_order_names_twice_is_listed():
    with pytest.raises(SettingError, match=r"stream\.order \[1, 1, 2, 2\] holds \[1, 2\] twice"):
        protocol.ordered(protocol.steps("2-1", 4), (1, 1, 2, 2))
    with pytest.raises(SettingError, match=r"must hold each of 1\.\.4 once"):
        protocol.ordered(protocol.steps("2-1", 4), (1, 2, 3))


# golden counts ------------------------------------------------------------------------------------------


def test_other_masks_than_the_fields_are_told_apart():
    class Reader:
        name, split = "voc", "train"

        def __len__(self):
            return 10582

    rng = np.random.default_rng(0)
    table = rng.random((10582, 256)) < 0.1
    findings = golden.inspect(Reader(), table)  # type: ignore[arg-type]
    assert {f.level for f in findings} == {"error"}
    assert "19-1 disjoint has" in findings[0].text
    assert "published [10034, 548]" in findings[0].text
    assert golden.differing_train(np.zeros((5, 256), bool))[0].startswith("19-1 disjoint: step 0")
    Reader.name = "shapes"
    assert golden.inspect(Reader(), table) == []  # type: ignore[arg-type]


torch.set_num_threads(1)
