"""Image and mask move together, boxes have torchvision's distribution, and the generator alone decides."""

import math
import statistics
import time
from typing import get_args

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from densecl.data.transforms import (
    AUGMENTATIONS,
    Box,
    ColorJitter,
    Compose,
    HorizontalFlip,
    RandomRescaleCrop,
    RandomResizedCrop,
    RandomRotation,
    ResizeCenterCrop,
    augmentation,
    resize_image,
    resize_labels,
)
from densecl.errors import SettingError, UnknownNameError
from densecl.settings.recipe import TrainingSettings

torch.set_num_threads(1)


def pair(height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A mask of smooth blobs and an image whose channels are the mask's two levels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 2, (4, 4)).astype(np.uint8)
    mask = np.kron(coarse, np.ones((math.ceil(height / 4), math.ceil(width / 4)), np.uint8))[:height, :width]
    mask = torch.from_numpy(np.ascontiguousarray(mask))
    return (mask * 200)[None].repeat(3, 1, 1), mask


def test_flip_mirrors_both_or_none():
    image, mask = pair(9, 14)
    rng = np.random.default_rng(0)
    flipped = HorizontalFlip(1.0)(image, mask, rng)
    assert torch.equal(flipped[0], image.flip(-1))
    assert torch.equal(flipped[1], mask.flip(-1))
    same = HorizontalFlip(0.0)(image, mask, rng)
    assert torch.equal(same[0], image)
    count = sum(HorizontalFlip()(image, mask, rng)[0] is not image for _ in range(2000))
    assert stats.binomtest(count, 2000, 0.5).pvalue > 1e-4


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("crop", [32, (24, 40)])
def test_every_augmentation_keeps_mask_and_image_together(name, crop):
    transform = augmentation(name, crop, None)
    for seed in range(8):
        image, mask = pair(61, 47, seed)
        before = image.clone(), mask.clone()
        new, labels = transform(image, mask, np.random.default_rng(seed))
        expected = (crop, crop) if isinstance(crop, int) else crop
        assert new.shape == (3, *expected)
        assert labels.shape == expected
        assert new.dtype == labels.dtype == torch.uint8
        assert set(labels.unique().tolist()) <= {0, 1, 255}
        assert torch.equal(image, before[0])
        assert torch.equal(mask, before[1])
        # away from edges, where resizing and turning mix levels, brightness tells the label; jitter moves the levels
        valid = labels != 255
        dark, bright = new[0][labels == 0].float(), new[0][labels == 1].float()
        if "jitter" in name:
            assert not dark.numel() or not bright.numel() or bright.median() > dark.median() + 50
            continue
        wrong = ((new[0] > 100) != (labels == 1)) & valid
        assert wrong.sum() <= (0.03 if "rotation" in name else 0.02) * valid.sum()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_generator_alone_decides(name):
    image, mask = pair(50, 70)
    image = torch.randint(0, 256, image.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    transform = augmentation(name, 32, None)

    def views(global_seed: int) -> list[torch.Tensor]:
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002 - to show that it does not matter
        return [transform(image, mask, np.random.default_rng((3, i)))[0] for i in range(6)]

    for first, second in zip(views(0), views(1), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (48, 48), (60, 300), (300, 60)])
@pytest.mark.parametrize("scale", [(0.5, 2.0), (0.08, 1.0), (1.2, 2.0)])
def test_boxes_have_the_distribution_of_torchvisions(height, width, scale):
    count = 1500
    rng = np.random.default_rng(1)
    transform = RandomResizedCrop(32, scale)
    ours = np.array([transform.draw(height, width, rng) for _ in range(count)])
    torch.manual_seed(1)
    image, theirs = torch.empty(3, height, width), []
    reference = v2.RandomResizedCrop(32, scale)
    for _ in range(count):
        made = reference.make_params([image])
        theirs.append([made["top"], made["left"], made["height"], made["width"]])
    theirs = np.array(theirs)
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-4
    area = ours[:, 2] * ours[:, 3]
    assert stats.ks_2samp(area, theirs[:, 2] * theirs[:, 3]).pvalue > 1e-4
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()


@pytest.mark.parametrize(
    ("size", "box"),
    [((90, 100), Box(0, 0, 90, 100)), ((100, 400), Box(0, 133, 100, 133)), ((400, 90), Box(140, 0, 120, 90))],
)
def test_when_no_box_fits_the_largest_allowed_centre_is_taken(size, box):
    assert RandomResizedCrop(32, (5.0, 6.0)).draw(*size, np.random.default_rng(0)) == box


def test_rescaling_by_one_is_a_plain_crop():
    image = torch.arange(3 * 20 * 30, dtype=torch.int).remainder(251).to(torch.uint8).view(3, 20, 30)
    mask = image[0].clone()
    transform = RandomRescaleCrop((8, 9), (1.0, 1.0))
    box, seen, place = transform.draw(20, 30, np.random.default_rng(4))
    new, labels = transform(image, mask, np.random.default_rng(4))
    assert (seen, place, box[2:]) == ((8, 9), (0, 0), (8, 9))
    assert torch.equal(new, image[:, box.top : box.top + 8, box.left : box.left + 9])
    assert torch.equal(labels, mask[box.top : box.top + 8, box.left : box.left + 9])


def test_rescaling_down_pads_with_void_and_the_mean():
    image, mask = torch.full((3, 20, 20), 9, dtype=torch.uint8), torch.ones(20, 20, dtype=torch.uint8)
    new, labels = RandomRescaleCrop(16, (0.5, 0.5))(image, mask, np.random.default_rng(0))
    assert (labels == 1).sum() == 100
    assert (labels == 255).sum() == 16 * 16 - 100
    assert torch.equal((new == 9).all(0), labels == 1)
    assert new[:, labels == 255].T.unique(dim=0).tolist() == [[124, 116, 104]]


def test_factors_are_log_uniform_and_every_pixel_is_seen():
    transform = RandomRescaleCrop(64, (0.5, 2.0))
    rng = np.random.default_rng(0)
    drawn = [transform.draw(128, 128, rng) for _ in range(2000)]
    factor = np.array([seen[0] / box.height for box, seen, _ in drawn])  # 64 / box height
    position = np.log2(factor) / 2 + 0.5
    assert stats.kstest(position, "uniform").statistic < 0.04
    assert min(box.top for box, _, _ in drawn) == 0
    assert max(box.top + box.height for box, _, _ in drawn) == 128
    assert all(box.top >= 0 and box.top + box.height <= 128 for box, _, _ in drawn)


def test_a_turn_by_a_right_angle_is_exact():
    class Fixed:
        def uniform(self, low, high):
            return high

    image = torch.randint(0, 256, (3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    turned, labels = RandomRotation(90)(image, image[0], Fixed())  # type: ignore[arg-type]
    assert torch.equal(turned, image.rot90(1, (-2, -1)))
    assert torch.equal(labels, image[0].rot90(1, (-2, -1)))


def test_a_turn_shows_void_corners_under_padding_and_keeps_the_centre():
    image, mask = torch.full((3, 60, 80), 9, dtype=torch.uint8), torch.ones(60, 80, dtype=torch.uint8)
    for seed in range(5):
        new, labels = RandomRotation()(image, mask, np.random.default_rng(seed))
        y, x = np.mgrid[-29.5:30, -39.5:40]
        inside = (x**2 + y**2) < 28**2
        assert (labels[torch.from_numpy(inside)] == 1).all()
        assert set(labels.unique().tolist()) <= {1, 255}
        angle = np.deg2rad(np.random.default_rng(seed).uniform(-15, 15))
        # a pixel of the result comes from its place turned back; either sense by symmetry of the frame
        u, v = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
        void = ((np.abs(u) > 40) | (np.abs(v) > 30)).sum()
        assert abs(int((labels == 255).sum()) - void) <= 8
        # two pixels from the edge the padding is pure
        deep = torch.from_numpy((np.abs(u) > 42) | (np.abs(v) > 32))
        deep = deep if torch.equal(labels[deep], torch.full_like(labels[deep], 255)) else deep.flip(-1)
        assert {tuple(p) for p in new[:, deep].T.tolist()} <= {(124, 116, 104)}


@pytest.mark.parametrize("name", ["adjust_brightness", "adjust_contrast", "adjust_saturation"])
def test_jitter_multiplies_as_torchvision_does_and_leaves_the_mask(name):
    image = torch.randint(0, 256, (3, 12, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mask = image[0].clone()
    kind = name.removeprefix("adjust_")
    only = ColorJitter(**{"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, kind: 0.5})
    new, labels = only(image, mask, np.random.default_rng(1))
    index = ["brightness", "contrast", "saturation"].index(kind)
    factor = 1 + 0.5 * float(np.random.default_rng(1).uniform(-1, 1, 3)[index])
    assert torch.equal(new, getattr(v2.functional, name)(image, factor))
    assert torch.equal(labels, mask)


def test_table_1_of_di_salvo_has_no_flips():
    for name in ("crop", "jitter", "rotation", "rotation+jitter"):
        parts = augmentation(name, 32, None).transforms  # type: ignore[attr-defined]
        kinds = {type(part) for part in parts}
        assert HorizontalFlip not in kinds
        assert RandomResizedCrop in kinds
        assert (RandomRotation in kinds) == ("rotation" in name)
        assert (ColorJitter in kinds) == ("jitter" in name)
    assert get_args(TrainingSettings.model_fields["augmentation"].annotation) == AUGMENTATIONS


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (512, 512), (13, 700)])
def test_resize_center_crop_is_torchvisions_resize_and_center_crop(size):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
    mask = torch.randint(0, 21, size, dtype=torch.uint8, generator=generator)
    new, labels = ResizeCenterCrop(64)(image, mask)
    assert torch.equal(new, v2.Compose([v2.Resize(64, antialias=True), v2.CenterCrop(64)])(image))
    nearest = v2.InterpolationMode.NEAREST_EXACT
    assert torch.equal(labels, v2.Compose([v2.Resize(64, nearest), v2.CenterCrop(64)])(mask[None])[0])


@pytest.mark.parametrize("size", [(17, 90), (61, 47), (200, 31)])
@pytest.mark.parametrize("last", [False, True])
def test_images_and_maps_are_resized_to_the_bits_of_torchvision(size, last, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(0, 256, (61, 70, 3) if last else (3, 61, 70), dtype=torch.uint8, generator=generator)
    image = (whole.permute(2, 0, 1) if last else whole)[:, :, 5:52]
    depth, nearest = torch.rand(2, 61, 47, generator=generator), v2.InterpolationMode.NEAREST_EXACT
    for capability in (torch.backends.cpu.get_cpu_capability(), "DEFAULT"):  # without integers, as on old processors
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=capability: name)
        assert torch.equal(resize_image(image, size), v2.functional.resize(image, list(size)))
    assert torch.equal(resize_labels(image[0], size), v2.functional.resize(image[:1], list(size), nearest)[0])
    assert torch.equal(resize_labels(depth, size), v2.functional.resize(depth, list(size), nearest))


def test_resize_center_crop_to_a_rectangle_covers_it_with_as_little_as_possible():
    image, mask = pair(192, 256)
    same = ResizeCenterCrop((192, 256))(image, mask)
    assert same[0] is image
    assert same[1] is mask
    assert ResizeCenterCrop((96, 200))(image, mask)[0].shape == (3, 96, 200)
    assert ResizeCenterCrop((200, 96))(image, mask)[1].shape == (200, 96)


def test_without_a_crop_images_keep_their_size():
    image, mask = pair(31, 17)
    assert augmentation("none", None)(image, mask, np.random.default_rng(0))[0] is image
    assert augmentation("flip", None)(image, mask, np.random.default_rng(0))[0].shape == image.shape
    assert Compose(())(image, mask, np.random.default_rng(0))[1] is mask


def test_bad_settings_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'rescale'"):
        augmentation("rescael", 32, None)
    with pytest.raises(SettingError, match=r"'reference' needs a crop size"):
        augmentation("reference", None, None)
    with pytest.raises(SettingError, match="no range"):
        augmentation("rescale", 32, (2.0, 0.5))
    with pytest.raises(SettingError, match="no pixels"):
        augmentation("none", 0, None)


def test_flipping_a_small_image_takes_microseconds():
    image, mask = pair(48, 48)
    rng, flip, seconds = np.random.default_rng(0), HorizontalFlip(1.0), []
    for _ in range(200):
        start = time.perf_counter()
        flip(image, mask, rng)
        seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 15e-6
