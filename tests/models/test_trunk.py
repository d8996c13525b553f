"""The trunk and the last layer of its weights together are the classifier that the weights were trained as."""

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from densecl.errors import DataError, SettingError
from densecl.models.backbones.trunk import Trunk, _renamed
from densecl.models.heads import TaskHeads
from densecl.models.network import Network
from densecl.runner.plan import make_plan

CLASSES = 7


@pytest.fixture(scope="module", params=["resnet10t", "densenet121"])
def pretrained(request, tmp_path_factory):
    """Name, a classifier of timm with seven classes, and a file of its weights."""
    torch.manual_seed(0)
    net = timm.create_model(request.param, num_classes=CLASSES).eval()
    file = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(net.state_dict(), file)
    return request.param, net, file


def given(trunk, outputs=CLASSES):
    network = Network(trunk).eval()
    network.make_heads(TaskHeads)
    network.task_heads.begin("first")
    network.grow(outputs, lambda c, n: trunk.build_image_head(c, n, "first", given=True))
    return network


def test_a_given_task_is_performed_as_the_pretrained_classifier_performs_it(pretrained):
    name, net, file = pretrained
    network = given(Trunk(name, weights=str(file)))
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = network.eval()(image).logits
        torch.testing.assert_close(logits[..., 0, 0], net(image))
    assert logits.shape == (2, CLASSES, 1, 1)
    ours = sum(p.numel() for p in network.parameters())
    assert ours == sum(p.numel() for p in net.parameters())


def test_another_number_of_classes_is_refused(pretrained):
    name, _, file = pretrained
    with pytest.raises(DataError, match="pretrained weights have 7 classes, and task 'first' has 5"):
        given(Trunk(name, weights=str(file)), 5)


def test_without_weights_a_given_head_starts_anew():
    trunk = Trunk("resnet10t", weights="none")
    assert trunk.classifier is None
    assert given(trunk, 5).n_outputs == 5


def test_names_and_shapes_of_torchvisions_vgg_are_those_of_timm():
    with torch.device("meta"):
        theirs = torchvision.models.vgg11_bn().state_dict()
        ours = timm.create_model("vgg11_bn").state_dict()
    renamed = _renamed(theirs, "head.fc")
    shapes = {key: tuple(t.shape) for key, t in ours.items() if "num_batches" not in key}
    assert {key: tuple(t.shape) for key, t in renamed.items() if "num_batches" not in key} == shapes


@pytest.mark.parametrize(
    ("name", "channels", "parameters"),
    [
        ("vgg16", 4096, 134_260_544),
        ("vgg16_bn", 4096, 134_268_992),
        ("resnet50", 2048, 23_508_032),
        ("densenet121", 1024, 6_953_856),
    ],
)
def test_the_networks_of_mallya_et_al_have_the_sizes_of_their_tables(name, channels, parameters):
    """Parameters without the last layer: 537, 537, 94 and 28 MB in single precision, Tables 2 and 4."""
    with torch.device("meta"):
        trunk = Trunk(name, weights="none")
    assert trunk.channels == channels
    assert sum(p.numel() for p in trunk.parameters()) == parameters


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("trunk(encoder=resnet50, weights=none)", "random weights.*--weights timm"),
        ("fcn(encoder=mini)", "does not keep the last layer.*trunk"),
    ],
)
def test_a_pretrained_task_needs_pretrained_weights(backbone, words):
    with pytest.raises(SettingError, match=f"task 'imagenet' is pretrained, and .*{words}"):
        make_plan("imagenet-6tasks", "piggyback", backbone=backbone)


def test_missing_weights_are_told_with_the_place_to_put_them(tmp_path):
    with pytest.raises(DataError, match="no weights file"):
        Trunk("resnet10t", weights=str(tmp_path / "none.safetensors"))
    with pytest.raises(SettingError, match=r"trunk\(dropout=1.5\) is no share"):
        Trunk("resnet10t", dropout=1.5)
