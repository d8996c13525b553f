"""Further maps of a reader, such as saliency: they move with the image, and reach the batch."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from data_trees import voc_tree
from densecl.check.tiny import TinyImages, tiny_scenario
from densecl.data.sets.voc import VOC
from densecl.data.transforms import AUGMENTATIONS, augmentation
from densecl.errors import DataError
from densecl.streams.samples import SampleKey, StepImages, TrainingSamples, Transforms
from densecl.training.batch import split
from densecl.training.loader import collate


class WithMask(TinyImages):
    """Its further map is the mask itself."""

    def read_extra(self, index):
        return {"mask": self.masks[index]}


def samples(transforms):
    table = torch.arange(256).byte()
    return TrainingSamples([WithMask(6, 1)], [StepImages(np.arange(6), table)], [transforms], seed=3)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("augmented", [True, False])
def test_a_further_map_moves_with_its_image(name, augmented):
    transform = augmentation(name, (24, 40), (0.4, 1.6))
    read = samples(Transforms(transform, augmentation("none", (24, 40))))
    drawn = [read[SampleKey(0, position, 0, 5, augmented=augmented)] for position in range(6)]
    assert all(torch.equal(sample.extra["mask"], sample.target) for sample in drawn)
    assert drawn[0].target.shape == (24, 40)


def test_maps_are_those_of_a_batch_its_copies_and_its_parts():
    read = samples(Transforms())
    keys = [[SampleKey(0, position, 0, 0) for position in range(4)]]
    (batch,) = DataLoader(read, batch_sampler=keys, collate_fn=collate, num_workers=1)
    assert batch.extra["mask"].equal(batch.target)
    moved = batch.to(torch.device("cpu"))._replace(target=batch.target.long())
    first, second = split(moved, 2)
    assert torch.cat([first.extra["mask"], second.extra["mask"]]).equal(batch.extra["mask"])


def test_without_maps_a_batch_has_none():
    scenario = tiny_scenario()
    plain = [scenario.training[SampleKey(0, 0, 0, 0)]]
    assert collate(plain).extra == {}
    assert collate([*plain, samples(Transforms())[SampleKey(0, 0, 0, 0)]]).extra == {}


def test_voc_has_the_saliency_maps_that_lie_beside_its_images(tmp_path):
    voc = voc_tree(tmp_path)
    plain = VOC(voc, "train")
    assert plain.read_extra(0) == {}
    before = plain.content
    (voc / "saliency_map").mkdir()
    for name in plain.ids:
        Image.fromarray(np.full(plain.image_size(0), 9, np.uint8)).save(voc / "saliency_map" / f"{name}.png")
    salient = VOC(voc, "train")
    assert salient.content != before  # they decide what is learnt
    assert (salient.read_extra(1)["saliency"] == 9).all()
    Image.fromarray(np.zeros((3, 5), np.uint8)).save(voc / "saliency_map" / f"{plain.ids[0]}.png")
    with pytest.raises(DataError, match=rf"saliency .*{plain.ids[0]}.png is 5x3 and its image 8x6"):
        salient.read_extra(0)
    (voc / "saliency_map" / f"{plain.ids[0]}.png").unlink()
    with pytest.raises(DataError, match=r"saliency_map.* is missing"):
        salient.read_extra(0)
