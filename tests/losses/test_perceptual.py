"""Losses of images and feature maps against NumPy; the loss network against torchvision's VGG-16."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torchvision.models import vgg

from densecl.errors import DataError, UnknownNameError
from densecl.losses import (
    absolute_error,
    content_distance,
    critic_loss,
    deception_loss,
    gram,
    sample_mean,
    squared_error,
    style_distance,
)
from densecl.models import loss_network, weights
from densecl.models.loss_network import build_loss_network
from densecl.models.patchgan import PatchGAN, initialised

RELUS = (3, 8, 15, 22)  # positions of relu1_2, 2_2, 3_3, 4_3 in torchvision's VGG-16


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def gram_by_hand(features: np.ndarray) -> np.ndarray:
    channels, height, width = features.shape
    result = np.zeros((channels, channels))
    for i in range(channels):
        for j in range(channels):
            result[i, j] = (features[i] * features[j]).sum() / (channels * height * width)
    return result


def test_gram_is_the_sum_over_pixels():
    features = normal(2, 4, 3, 5)
    expected = np.stack([gram_by_hand(x.numpy()) for x in features])
    np.testing.assert_allclose(gram(features).numpy(), expected, rtol=1e-12)
    assert gram(features.half()).dtype == torch.float32


def test_distances_are_mean_squares_of_each_sample():
    maps = [normal(2, 4, 6, 6), normal(2, 3, 3, 3, seed=1)]
    other = [normal(1, 4, 9, 5, seed=2), normal(1, 3, 4, 2, seed=3)]  # a style image has a size of its own
    grams = [gram(x)[0] for x in other]
    expected = [
        sum(
            ((gram_by_hand(m[b].numpy()) - gram_by_hand(o[0].numpy())) ** 2).mean() / s
            for m, o, s in zip(maps, other, (2.0, 0.5), strict=True)
        )
        for b in range(2)
    ]
    np.testing.assert_allclose(style_distance(maps, grams, (2.0, 0.5)).numpy(), expected, rtol=1e-12)
    reference = normal(2, 4, 6, 6, seed=4)
    np.testing.assert_allclose(
        content_distance(maps[0], reference).numpy(),
        ((maps[0].numpy() - reference.numpy()) ** 2).mean((1, 2, 3)),
        rtol=1e-12,
    )


def test_gradients_of_distances_are_those_of_finite_differences():
    grams, reference = [gram(normal(1, 3, 4, 4, seed=1))[0]], normal(2, 3, 4, 4, seed=2)
    features = normal(2, 3, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: style_distance([x], grams) + content_distance(x, reference), features)


def test_features_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="do not belong together"):
        style_distance([normal(1, 4, 2, 2)], [torch.eye(3)])
    with pytest.raises(ValueError, match="do not belong together"):
        style_distance([normal(1, 3, 2, 2)], [torch.eye(3), torch.eye(3)])
    with pytest.raises(ValueError, match="differ in shape"):
        content_distance(normal(1, 4, 2, 2), normal(1, 4, 2, 3))


@pytest.mark.parametrize(("loss", "of"), [(squared_error, np.square), (absolute_error, np.abs)])
def test_image_losses_weigh_samples_and_pixels(loss, of):
    prediction, target = normal(3, 2, 4, 5), normal(3, 2, 4, 5, seed=1)
    errors = of(prediction.numpy() - target.numpy())
    assert loss(prediction, target).item() == pytest.approx(errors.mean(), rel=1e-12)
    samples, pixels = torch.tensor([0.0, 1.0, 3.0]), torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    per_sample = errors.mean((1, 2, 3))
    expected = (per_sample * [0, 1, 3]).sum() / 4
    assert loss(prediction, target, weight=samples).item() == pytest.approx(expected, rel=1e-12)
    expected = (errors.mean(1) * pixels.numpy()).sum() / pixels.numpy().astype(float).sum()
    assert loss(prediction, target, weight=pixels).item() == pytest.approx(expected, rel=1e-6)
    assert loss(prediction, target, weight=torch.zeros(3)).item() == 0
    with pytest.raises(ValueError, match="differ in shape"):
        loss(prediction, target[:, :1])


def test_sample_mean_weighs_samples():
    losses = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    assert sample_mean(losses).item() == 3
    assert sample_mean(losses, torch.tensor([1.0, 0.0, 3.0])).item() == 19 / 4
    assert sample_mean(losses, torch.zeros(3)).item() == 0
    with pytest.raises(ValueError, match="weight has shape"):
        sample_mean(losses, torch.ones(3, 4, 4))


def test_adversarial_losses_are_cross_entropies():
    real, made = normal(2, 1, 3, 3), normal(2, 1, 3, 3, seed=1)
    p, q = (1 / (1 + np.exp(-x.numpy())) for x in (real, made))
    expected = (-np.log(p).mean() - np.log(1 - q).mean()) / 2
    assert critic_loss(real, made).item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(deception_loss(made).numpy(), -np.log(q).mean((1, 2, 3)), rtol=1e-12)
    assert critic_loss(torch.full((2,), 1e4), torch.full((2,), -1e4)).item() == 0  # far out, and finite


@pytest.fixture(scope="module")
def torchvision_features():
    torch.manual_seed(0)
    return vgg.make_layers(vgg.cfgs["D"]).eval()


@pytest.fixture(scope="module")
def weights_file(torchvision_features, tmp_path_factory):
    """A file as torchvision's, with more layers and a classifier than is needed."""
    state = {f"features.{key}": value for key, value in torchvision_features.state_dict().items()}
    file = tmp_path_factory.mktemp("weights") / "vgg.safetensors"
    safetensors.torch.save_file({**state, "classifier.6.bias": torch.zeros(1000)}, file)
    return file


def test_vgg_is_torchvisions_up_to_relu4_3(torchvision_features, weights_file):
    network = build_loss_network("vgg16", str(weights_file))
    image = torch.rand(2, 3, 40, 32, generator=torch.Generator().manual_seed(1))
    x = (image - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = []
    with torch.no_grad():
        for i, layer in enumerate(torchvision_features):
            x = layer(x.clone())
            if i in RELUS:
                expected.append(x.clone())
        maps = network(image)
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 40, 32), (128, 20, 16), (256, 10, 8), (512, 5, 4)]
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert network.content == 1  # relu2_2
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network.name.startswith("vgg16 (")


def test_random_networks_follow_their_seed_alone():
    state = torch.random.get_rng_state()
    one, same, other = (build_loss_network("random", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    image = torch.rand(1, 3, 48, 48)
    assert [tuple(m.shape[1:]) for m in one(image)] == [(24, 48, 48), (32, 24, 24), (48, 12, 12)]
    assert all(torch.equal(a, b) for a, b in zip(one(image), same(image), strict=True))
    assert not torch.equal(one(image)[0], other(image)[0])
    assert (one.name, other.name) == ("random (random, seed 3)", "random (random, seed 4)")
    assert build_loss_network("vgg16", "none", seed=5).name == "vgg16 (random, seed 5)"


def test_building_draws_nothing_from_the_global_generator():
    state = torch.random.get_rng_state()
    build_loss_network("vgg16", "none")
    initialised(0, width=4)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_gradients_reach_the_image():
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    build_loss_network("random")(image)[2].sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """No cache, no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(weights, "getproxies", dict)
    calls = []

    def refuse(address, timeout):
        calls.append((address, timeout))
        raise OSError("Network is unreachable")

    monkeypatch.setattr(weights.socket, "create_connection", refuse)
    return calls


def test_without_network_the_error_names_the_place_of_the_file(homeless):
    with pytest.raises(DataError) as error:
        build_loss_network("vgg16")
    assert homeless == [(("download.pytorch.org", 443), 5)]
    assert "Network is unreachable" in str(error.value)
    assert str(loss_network.places()[1]) in str(error.value)
    assert loss_network.VGG_URL in str(error.value)


@pytest.mark.usefixtures("homeless")
def test_a_file_put_by_hand_is_used(weights_file):
    place = loss_network.places()[0]
    place.parent.mkdir(parents=True)
    place.write_bytes(Path(weights_file).read_bytes())
    assert build_loss_network("vgg16").name == "vgg16 (ImageNet)"


@pytest.mark.usefixtures("homeless")
def test_a_download_is_used_and_kept(weights_file, monkeypatch):
    monkeypatch.setattr(weights, "getproxies", lambda: {"https": "somewhere"})

    def download(url, file, hash_prefix, progress):
        assert (url, hash_prefix) == (loss_network.VGG_URL, "397923af")
        torch.save(safetensors.torch.load_file(weights_file), file)

    monkeypatch.setattr(loss_network.torch.hub, "download_url_to_file", download)
    first = build_loss_network("vgg16").state_dict()
    monkeypatch.setattr(loss_network.torch.hub, "download_url_to_file", None)
    again = build_loss_network("vgg16").state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="loss network 'vgg19'"):
        build_loss_network("vgg19")
    with pytest.raises(DataError, match="no weights file"):
        build_loss_network("vgg16", str(tmp_path / "none.pth"))
    safetensors.torch.save_file({"features.0.weight": torch.zeros(2, 2)}, tmp_path / "odd.safetensors")
    with pytest.raises(DataError, match=r"features\.0\.weight"):
        build_loss_network("vgg16", str(tmp_path / "odd.safetensors"))


def test_patchgan_sees_seventy_pixels():
    critic = initialised(0).double()
    # pix2pix: 64 convolutions 4x4 of 3 channels, ... 512 without bias under normalisation; 256x256 gives 30x30 logits
    assert sum(p.numel() for p in critic.parameters()) == 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 65
    field = 1
    for stride in (1, 1, 2, 2, 2):  # from the last layer back
        field = (field - 1) * stride + 4
    assert field == 70
    with torch.no_grad():
        assert critic(torch.zeros(1, 3, 256, 256, dtype=torch.float64)).shape == (1, 1, 30, 30)
        small = PatchGAN(width=4)
        assert small(torch.rand(1, 3, small.smallest, small.smallest)).numel() > 0
