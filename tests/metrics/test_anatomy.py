"""What a class lost, split into features and head: sums that are exact, pixels as they are counted one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densecl.metrics.anatomy import Parts, pixels_of, split

NEWER = (3, 4)  # labels of later steps, of 0..4
share = st.floats(0, 1)
counts = st.lists(st.integers(0, 10**6), min_size=4, max_size=4)


@given(share, share, share, share, counts)
@settings(max_examples=50)
def test_the_terms_add_up_to_what_was_lost(head, probe, reference, reference_probe, pixels):
    found = split(head, probe, reference, reference_probe, Parts(*pixels))
    assert found.lost == pytest.approx(reference - head, abs=1e-12)
    assert found.representation == reference_probe - probe
    assert found.head == pytest.approx((probe - head) - (reference_probe - reference), abs=1e-12)
    if sum(pixels):
        wanted = np.array(pixels) / sum(pixels) * found.head
        np.testing.assert_allclose(found.classifier, wanted, atol=1e-12)


def test_the_term_without_pixels_is_that_of_pixels_taken():
    assert split(0.2, 0.3, 0.5, 0.4, Parts(0, 0, 0, 0)).classifier == pytest.approx((0, 0, 0, 0.2))


def test_equal_features_lose_nothing_and_what_the_probe_lacked_before_is_no_loss():
    of_head = split(0.2, 0.6, 0.7, 0.6, Parts(1, 1, 0, 0))
    assert of_head.representation == 0
    assert of_head.classifier == pytest.approx((0.25, 0.25, 0, 0))
    of_features = split(0.5, 0.4, 0.7, 0.6, Parts(1, 1, 0, 0))
    assert of_features.representation == pytest.approx(0.2)
    assert of_features.classifier == pytest.approx((0, 0, 0, 0))


@pytest.mark.parametrize("label", [1, 2, 3])
def test_pixels_are_those_that_the_probe_finds_and_the_head_does_not(label):
    rng = np.random.default_rng(label)
    truth, probe, head = rng.integers(0, 5, (3, 2000))
    unused = np.zeros((5, 5), dtype=int)
    right = probe == truth
    np.add.at(unused, (truth[right], head[right]), 1)
    wrong = (head != truth) & (head != probe)
    taken = np.bincount(head[wrong], minlength=5)
    found = pixels_of(unused, taken, label, NEWER)
    expected = [0, 0, 0, 0]
    for true, seen, said in zip(truth, probe, head, strict=True):
        if true == label and seen == label and said != label:
            expected[0 if said == 0 else 1 if said in NEWER else 2] += 1
        elif true != label and said == label and seen != label:
            expected[3] += 1
    assert found == tuple(expected)
