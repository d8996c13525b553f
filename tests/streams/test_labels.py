"""Look-up tables agree with the rules said pixel by pixel, and are fast."""

import statistics
import time

import pytest
import torch

from densecl.streams.protocol import lookup_table
from densecl.streams.samples import remap


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
