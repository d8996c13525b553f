"""Look-up tables agree with the rules said pixel by pixel, and are fast."""

import statistics
import time

import numpy as np
import pytest
import torch

from densecl.check.tiny import TinyImages
from densecl.data.transforms import RandomRescaleCrop, RandomRotation
from densecl.streams.protocol import lookup_table
from densecl.streams.samples import SampleKey, Transforms, remap
from densecl.streams.scenario import class_incremental


def by_rule(label: int, mapping: dict[int, int], fill: int, void: int) -> int:
    if label in mapping:
        return mapping[label]
    if label == 255:
        return void
    return 0 if label == 0 else fill


@pytest.mark.parametrize("mapping", [{}, {16: 1, 17: 2}, {0: 5, 255: 0}, {20: 20}])
@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("void", [255, 0])
def test_table_and_remap_follow_the_rule(mapping, fill, void):
    table = torch.from_numpy(lookup_table(mapping, fill, void=void))
    expected = [by_rule(k, mapping, fill, void) for k in range(256)]
    assert table.dtype == torch.uint8
    assert table.tolist() == expected
    mask = torch.arange(256, dtype=torch.uint8).view(16, 16)
    before = mask.clone()
    for shaped in (mask, mask.T, mask.view(4, 8, 8)):
        new = remap(shaped, table)
        assert new.dtype == torch.uint8
        assert new.shape == shaped.shape
        assert new.flatten().tolist() == [expected[k] for k in shaped.flatten().tolist()]
    assert torch.equal(mask, before)


@pytest.mark.parametrize("arguments", [({1: 256}, 0), ({-1: 0}, 0), ({}, 300)])
def test_labels_outside_a_byte_are_refused(arguments):
    with pytest.raises(ValueError, match=r"outside 0\.\.255"):
        lookup_table(*arguments)


def test_remap_of_512_pixels_square_takes_under_half_a_millisecond():
    torch.set_num_threads(1)
    mask = torch.randint(0, 21, (512, 512), dtype=torch.uint8)
    table = torch.from_numpy(lookup_table({16: 1}, 0))
    seconds = []
    for _ in range(40):
        start = time.perf_counter()
        remap(mask, table)
        seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 0.5e-3


@pytest.mark.parametrize("labels", ["mib2020", "plop2021", "strict"])
@pytest.mark.parametrize("transform", [RandomRescaleCrop(40, (0.5, 0.5)), RandomRotation(45)])
def test_padding_is_void_under_every_label_preset(labels, transform):
    train = TinyImages(6, seed=1, size=40)
    white = train.images  # padding has another colour than any pixel, so it can be found
    white[:] = np.where(white > 120, 121, white)
    scenario = class_incremental(
        train, TinyImages(4, seed=2, size=40), ((1, 2), (3,), (4,)), labels=labels, presence=train.presence(),
        transforms=Transforms(augment=transform, plain=transform),
    )  # fmt: skip
    for augmented in (True, False):
        sample = scenario.training[SampleKey(0, 0, 0, 0, augmented=augmented)]
        padding = (sample.image == torch.tensor([124, 116, 104]).view(3, 1, 1)).all(0)
        assert padding.sum() > 100
        assert (sample.target[padding] == 255).all()
        if isinstance(transform, RandomRescaleCrop):  # turned pixels mix with padding
            assert (sample.target[~padding] == 255).any() == (labels != "mib2020")
