"""`densecl check small.py:Small`: sound backbones pass, and each fault is named in words."""

import re

import pytest
import torch
from torch import nn

from densecl.check.backbone import check_backbone_class
from densecl.errors import SettingError
from densecl.models import Backbone, Features
from densecl.settings.backbone import packaged_backbone
from densecl.settings.catalogue import backbones

torch.set_num_threads(1)

TINY = {
    "allmlp": {"encoder": "mini_swin", "width": 8},
    "bisenet": {"encoder": "mini", "width": 16, "spatial": (8, 8), "spatial_width": 8},
    "deeplabv3": {"encoder": "resnet18", "width": 8},
    "fcn": {"encoder": "mini", "upsampling": "learned"},
    "resblock": {"width": 4, "blocks": 1},
    "trunk": {"encoder": "resnet10t"},
    "unet": {"width": 4, "depth": 2},
    "upernet": {"encoder": "mini", "width": 8},
    "vit": {"encoder": "mini_vit", "width": 8, "maps": 2, "encoder.embed_dim": 24},
    "wrn": {"depth": 10, "width": 1},
}


class Small(Backbone):
    """Two convolutions at a quarter of the image."""

    def __init__(self, width: int = 24, momentum: float = 0.1):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8, momentum=momentum), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.channels = width

    def forward(self, image):
        shallow = self.first(image)
        return Features(self.second(shallow), (shallow,))


@pytest.mark.parametrize("name", backbones())
def test_our_backbones_pass(name):
    assert check_backbone_class(packaged_backbone(name), TINY[name]) == []


def test_a_backbone_of_a_user_passes_with_its_defaults_and_with_values():
    assert check_backbone_class(Small, {}) == []
    assert check_backbone_class(Small, {"width": 8}) == []


def test_values_that_do_not_fit_are_the_users_fault():
    with pytest.raises(SettingError, match="backbone Small has width='8'"):
        check_backbone_class(Small, {"width": "8"})


class Unused(Small):
    def __init__(self):
        super().__init__()
        self._spare = nn.Conv2d(3, 3, 1)


class Detached(Small):
    def forward(self, image):
        return Features(self.second(self.first(image).detach()), (image,))


class WrongChannels(Small):
    def __init__(self):
        super().__init__()
        self.channels = 5


class NoChannels(Small):
    def __init__(self):
        super().__init__()
        del self.channels


class NoSuchPart(Small):
    decoder_parts = ("decoder",)


class ABareMap(Small):
    def forward(self, image):
        return super().forward(image).decoded


class NoStages(Small):
    def forward(self, image):
        return super().forward(image)._replace(encoded=())


class DeepToShallow(Small):
    def forward(self, image):
        shallow = self.first(image)
        return Features(self.second(shallow), (self.second(shallow), shallow))


class WrongStrides(Small):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.strides = (4,)


class PromisesAuxiliary(Small):
    auxiliary_channels = (8,)


class WrongAuxiliary(Small):
    auxiliary_channels = (4,)

    def forward(self, image):
        features = super().forward(image)
        return features._replace(auxiliary=features.encoded if self.training else ())


class GuessesAxes(Small):
    """Takes a map whose first side is the number of channels for one with channels behind."""

    def forward(self, image):
        features = super().forward(image)
        x = features.decoded
        return features._replace(decoded=x.permute(0, 1, 3, 2) if x.shape[2] == self.channels else x)


class OneSize(Small):
    def forward(self, image):
        assert image.shape[2] == 64, "images are 64 pixels high"
        return super().forward(image)


class ChangesImages(Small):
    def forward(self, image):
        return super().forward(image.sub_(0.5))


class Random(Small):
    def forward(self, image):
        return super().forward(image + torch.rand(()))


class SeesTheBatch(Small):
    def forward(self, image):
        return super().forward(image - image.mean())


class Negative(Small):
    nonnegative = True

    def forward(self, image):
        features = super().forward(image)
        return features._replace(decoded=features.decoded - 1)


class NotFinite(Small):
    def forward(self, image):
        features = super().forward(image)
        return features._replace(decoded=features.decoded / 0)


class OwnGenerator(Small):
    def __init__(self):
        super().__init__()
        self.second[0].weight.data.normal_(generator=torch.Generator().manual_seed(id(self)))


class ChangesOldHeads(Small):
    def build_head(self, channels, outputs):
        if outputs == 3:
            self.heads = [nn.Conv2d(channels, outputs, 1)]
            return self.heads[0]
        self.heads[0].weight.data += 1
        return nn.Conv2d(channels, outputs, 1)


class LargeHead(Small):
    def build_head(self, channels, outputs):
        return nn.Conv2d(channels, outputs + 1, 1)


class OutsideTheState(Small):
    def __init__(self):
        super().__init__()
        self.scale = 1.0

    def forward(self, image):
        if self.training:
            self.scale += 1.0
        features = super().forward(image)
        return features._replace(decoded=features.decoded * self.scale)


class NotCopied(Small):
    def __deepcopy__(self, _memo):
        raise TypeError("cannot be copied")


class Breaks(Small):
    def __init__(self):
        super().__init__()
        self.broken = [][1]


class Unwritable(Small):
    def __init__(self, activation: object = nn.ReLU):
        super().__init__()


@pytest.mark.parametrize(
    ("cls", "finding"),
    [
        (Unused, r"^no gradient reaches _spare\.weight: use it in forward, or leave it out$"),
        (Detached, r"^no gradient reaches first\.0\.weight"),
        (WrongChannels, r"Features\.decoded is \(2, 24, 16, 16\); it must be a tensor \(2, 5, h, w\)"),
        (NoChannels, r"NoChannels\.channels must be the number of channels"),
        (NoSuchPart, r"decoder_parts names 'decoder', which is no child: it has first, second"),
        (ABareMap, r"forward returned a Tensor; it must return densecl\.models\.Features"),
        (NoStages, r"Features\.encoded must be a tuple with at least one map"),
        (DeepToShallow, r"maps of height \[16, 32\]; they must go from shallow to deep"),
        (WrongStrides, r"on images of 64x64: Features\.encoded\[0\] is 32x32; encoder\.strides promises stride 4"),
        (PromisesAuxiliary, r"training .*there are 0 auxiliary maps; auxiliary_channels promises 1"),
        (WrongAuxiliary, r"Features\.auxiliary\[0\] is \(2, 8, 32, 32\); it must be a tensor \(2, 4, h, w\)"),
        (
            GuessesAxes,
            r"on images of 96x128: Features\.decoded is 32x24; both sides must shrink alike, by 4",
        ),
        (OneSize, r"on images of 49x67: in test_check_backbone\.py:\d+, AssertionError: images are 64 pixels high"),
        (ChangesImages, r"forward changed the images in place: change a copy"),
        (Random, r"evaluation gives other values for the same images"),
        (SeesTheBatch, r"other values for an image alone than in a batch"),
        (Negative, r"Features\.decoded holds -1, but nonnegative is True"),
        (NotFinite, r"Features\.decoded holds values that are not finite"),
        (OwnGenerator, r"second\.0\.weight differs between two builds with one seed"),
        (ChangesOldHeads, r"a second head changes the outputs of the first one"),
        (LargeHead, r"a head of 3 outputs gives logits \(2, 4, 64, 96\), not \(2, 3, 64, 96\); see build_head"),
        (
            OutsideTheState,
            r"a new one with its state_dict gives other values: keep all that forward needs in parameters",
        ),
        (NotCopied, r"copying it for a teacher: in test_check_backbone\.py:\d+, TypeError: cannot be copied"),
        (Breaks, r"building it: in test_check_backbone\.py:\d+, IndexError"),
    ],
)
def test_each_fault_is_named_in_words(cls, finding):
    findings = check_backbone_class(cls, {})
    assert findings
    assert any(re.search(finding, text) for text in findings), findings
    assert not any("\n" in text for text in findings)


def test_a_default_that_no_record_can_hold_is_refused():
    with pytest.raises(SettingError, match=r"backbone Unwritable has activation=.*a record holds numbers, texts"):
        check_backbone_class(Unwritable, {})
