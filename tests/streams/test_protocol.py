import numpy as np
import pytest

from data_trees import presence
from densecl.errors import DenseCLError, SettingError, UnknownNameError
from densecl.settings.splits import grouped
from densecl.streams import protocol


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("15-5", 20, [15, 5]),
        ("15-5s", 20, [15, 1, 1, 1, 1, 1]),
        ("15-1", 20, [15, 1, 1, 1, 1, 1]),
        ("19-1", 20, [19, 1]),
        ("10-10", 20, [10, 10]),
        ("10-1", 20, [10] + [1] * 10),
        ("5-3", 20, [5] + [3] * 5),
        ("6-5", 11, [6, 5]),
        ("6-1", 11, [6] + [1] * 5),
        ("100-10", 150, [100] + [10] * 5),
        ("10-6-4", 20, [10, 6, 4]),
        ("1-2-1", 4, [1, 2, 1]),
    ],
)
def test_a_split_has_the_steps_the_field_gives_it(name, classes, expected):
    steps = protocol.steps(name, classes)
    assert [len(step) for step in steps] == expected
    assert [c for step in steps for c in step] == list(range(1, classes + 1))


@pytest.mark.parametrize(
    "name", ["15-4", "20-1", "0-5", "15-0", "15-4s", "fifteen", "15-5x", "", "15-6s", "10-6-5", "10-6-4s", "10-0-10"]
)
def test_a_split_that_does_not_sum_to_the_classes_is_refused_by_name(name):
    with pytest.raises(SettingError, match=name if name else "not a split"):
        protocol.steps(name, 20)


def test_groups_of_names_are_a_split_and_an_order():
    groups = {"animals": ["cat", "dog"], "others": ["bus"], "last": ["sky"]}
    assert grouped(groups, ("bus", "cat", "sky", "dog")) == ("2-1-1", (2, 4, 1, 3))


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"a": ["bus"], "b": []}, "the group 'b' of stream.groups is empty"),
        ({"a": ["bus", "cat"], "b": ["cat"]}, "the class 'cat' is in 'a' and 'b'"),
        ({"a": ["bus", "bus"], "b": ["cat"]}, "'bus' is twice in the group 'a'"),
        ({"a": ["buss"], "b": ["cat"]}, r"class in stream\.groups\.a 'buss'.*did you mean 'bus'"),
        ({"a": ["bus"], "b": ["cat"]}, "no group has sky"),
        ({"a": ["bus", "cat", "sky"]}, "one group"),
    ],
)
def test_groups_that_are_no_stream_are_refused(groups, words):
    with pytest.raises(DenseCLError, match=words):
        grouped(groups, ("bus", "cat", "sky"))


IMAGES = presence([[1, 2], [2, 3, 0, 255], [3], [1, 4], [4], [2], [0, 255], [1, 2, 3, 4]])
STEPS = ((1, 2), (3,), (4,))


def test_overlapped_takes_every_image_with_a_current_class():
    chosen = protocol.select(IMAGES, STEPS, "overlapped")
    assert [c.tolist() for c in chosen] == [[0, 1, 3, 5, 7], [1, 2, 7], [3, 4, 7]]


def test_disjoint_leaves_out_images_with_future_classes_and_ignores_background_and_void():
    chosen = protocol.select(IMAGES, STEPS, "disjoint")
    assert [c.tolist() for c in chosen] == [[0, 5], [1, 2], [3, 4, 7]]


def test_sequential_has_the_images_of_disjoint():
    disjoint, sequential = (protocol.select(IMAGES, STEPS, s) for s in ("disjoint", "sequential"))
    assert all(np.array_equal(a, b) for a, b in zip(disjoint, sequential, strict=True))


def test_select_agrees_with_sets_on_random_images():
    rng = np.random.default_rng(0)
    images = [set(rng.choice(21, rng.integers(1, 5), replace=False).tolist()) - {0} for _ in range(300)]
    steps = protocol.steps("10-5", 20)
    for setting in ("overlapped", "disjoint"):
        for k, indices in enumerate(protocol.select(presence(images), steps, setting)):
            seen = {c for step in steps[: k + 1] for c in step}
            expected = [
                i for i, held in enumerate(images) if held & set(steps[k]) and (setting == "overlapped" or held <= seen)
            ]
            assert indices.tolist() == expected


def test_a_step_without_an_image_is_refused_by_number():
    with pytest.raises(SettingError, match=r"step 1 \(classes 2\)"):
        protocol.select(presence([[1], [1]]), ((1,), (2,)))


def test_an_unknown_setting_is_refused():
    with pytest.raises(UnknownNameError, match="overlaped"):
        protocol.select(IMAGES, STEPS, "overlaped")


def test_training_labels_are_those_of_the_step_in_order_of_arrival():
    steps = ((3, 1), (2,))
    first, second = (protocol.step_table(steps, k, "overlapped", "plop2021") for k in (0, 1))
    assert [first[c] for c in (0, 1, 2, 3, 255)] == [0, 2, 0, 1, 255]
    assert [second[c] for c in (0, 1, 2, 3, 255)] == [0, 0, 3, 0, 255]


def test_mib2020_trains_void_as_background_and_sequential_keeps_old_labels():
    assert protocol.step_table(STEPS, 0, "overlapped", "mib2020")[255] == 0
    table = protocol.step_table(STEPS, 1, "sequential", "plop2021")
    assert [table[c] for c in (1, 2, 3, 4)] == [1, 2, 3, 0]


def test_every_true_class_keeps_a_label_of_its_own_in_evaluation():
    assert [protocol.test_table(((3, 1), (2,)))[c] for c in (0, 1, 2, 3, 9, 255)] == [0, 2, 3, 1, 255, 255]


def test_class_order_is_a_permutation_or_a_seed():
    steps = protocol.steps("2-1", 4)
    assert protocol.ordered(steps, (4, 3, 2, 1)) == ((4, 3), (2,), (1,))
    shuffled = protocol.ordered(steps, 3)
    assert sorted(c for s in shuffled for c in s) == [1, 2, 3, 4]
    assert shuffled == protocol.ordered(steps, 3)
    with pytest.raises(SettingError, match=r"\[1\] twice"):
        protocol.ordered(steps, (1, 1, 2, 3))
