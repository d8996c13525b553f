"""Masks that are painted from COCO's annotations, against masks made by hand."""

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from data_trees import square
from densecl.data.sets.coco import semantic_mask
from densecl.errors import DataError


def counts(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, starting with zeros."""
    flat, runs, value = mask.T.ravel(), [], 0
    while len(flat):
        n = next((i for i, v in enumerate(flat) if v != value), len(flat))
        runs.append(n)
        flat, value = flat[n:], 1 - value
    return runs


def test_smaller_objects_lie_on_top_whatever_their_order():
    large, small = square(1, 1, 0, 0, 8), square(2, 90, 2, 2, 3)
    expected = np.zeros((10, 12), np.uint8)
    expected[0:8, 0:8] = 1
    expected[2:5, 2:5] = 80  # category 90 is the 80th class
    for annotations in ([large, small], [small, large]):
        np.testing.assert_array_equal(semantic_mask(annotations, 10, 12), expected)


def test_of_two_equal_areas_the_higher_id_is_on_top():
    a, b = square(7, 1, 0, 0, 4), square(3, 2, 2, 0, 4)
    mask = semantic_mask([a, b], 6, 8)
    assert mask[0].tolist() == [1, 1, 1, 1, 2, 2, 0, 0]
    assert semantic_mask([b, a], 6, 8)[0].tolist() == mask[0].tolist()


def test_crowds_are_void_below_every_instance():
    crowd = np.zeros((6, 8), np.uint8)
    crowd[1:3, 2:5] = 1
    region = {"counts": counts(crowd), "size": [6, 8]}
    annotations = [
        {"id": 9, "image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": region},
        square(1, 3, 0, 0, 6),
    ]
    expected = np.zeros((6, 8), np.uint8)
    expected[:, :6] = 3
    np.testing.assert_array_equal(semantic_mask(annotations, 6, 8), expected)
    np.testing.assert_array_equal(semantic_mask(annotations[:1], 6, 8), crowd * 255)


def test_every_way_to_write_a_region_is_read():
    shape = np.zeros((5, 7), np.uint8)
    shape[1:4, 2:6] = 1
    packed = run_lengths.encode(np.asfortranarray(shape))
    kinds = [{"counts": counts(shape), "size": [5, 7]}, packed, {**packed, "counts": packed["counts"].decode()}]
    for segmentation in kinds:
        annotation = {"id": 1, "category_id": 13, "iscrowd": 0, "segmentation": segmentation}
        np.testing.assert_array_equal(semantic_mask([annotation], 5, 7), shape * 12)
    without_extent = {"id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 3, 3]]}  # two points
    assert not semantic_mask([without_extent, {**without_extent, "segmentation": []}], 5, 7).any()


TALL = run_lengths.encode(np.asfortranarray(np.ones((12, 16), np.uint8)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"category_id": 91}, "category_id 91, which is none of COCO's 80"),
        ({"category_id": "1"}, "category_id '1', which is none"),
        ({"category_id": [1]}, r"category_id \[1\], which is none"),
        ({"segmentation": {"counts": "x"}}, "segmentation that cannot be read"),
        ({"segmentation": {**TALL, "size": [6, 8]}}, "segmentation that cannot be read"),
        ({"segmentation": {"counts": [0, 192], "size": [12, 16]}}, "run lengths for 16x12 pixels, its image has 8x6"),
        ({"segmentation": {"counts": [0, 47], "size": [6, 8]}}, "segmentation that cannot be read"),
        ({"segmentation": {"counts": [0, 4800], "size": [6, 8]}}, "segmentation that cannot be read"),
        ({"segmentation": {"counts": [-8, 56], "size": [6, 8]}}, "segmentation that cannot be read"),
        ({"segmentation": TALL}, "run lengths for 16x12 pixels"),
        ({"segmentation": None}, "segmentation that cannot be read"),
        ({"segmentation": [["a"] * 6]}, "segmentation that cannot be read"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_named_in_words(change, words):
    with pytest.raises(DataError, match=rf"annotation 5 has (the |a |run |){words.removeprefix('run ')}") as caught:
        semantic_mask([{**square(5, 1, 0, 0, 4), **change}], 6, 8)
    assert "Error" not in str(caught.value)


@pytest.mark.parametrize("place", [2**31, -(10**9), 1e300, float("nan"), "6"])
def test_a_polygon_far_outside_of_its_image_is_refused_before_memory_is_taken(place):
    annotation = {"id": 1, "category_id": 3, "iscrowd": 0, "segmentation": [[1, 1, place, 1, 6, 6]]}
    with pytest.raises(DataError, match="annotation 1 has a segmentation that cannot be read"):
        semantic_mask([annotation], 8, 8)
