"""Colour spaces and image metrics against NumPy, PIL and torchmetrics."""

import numpy as np
import pytest
import torch
from PIL import Image

from densecl.metrics.colour import rgb_to_ycbcr, to_uint8, ycbcr_to_rgb
from densecl.metrics.image_quality import ImageAverages, mse, ssim

# JFIF 1.02, page 3
TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])


def noise(*shape, seed=0, dtype=torch.uint8):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)).to(dtype)


def blurred(image, seed, amount):
    """Something between equal and unrelated."""
    other = noise(*image.shape, seed=seed).double()
    return (image.double() * (1 - amount) + other * amount).round().to(torch.uint8)


def test_ycbcr_is_jfifs_matrix():
    rgb = noise(2, 3, 5, 7, dtype=torch.float64)
    expected = np.einsum("ij,bjhw->bihw", TO_YCBCR, rgb.numpy()) + np.array([0, 128, 128])[:, None, None]
    np.testing.assert_allclose(rgb_to_ycbcr(rgb).numpy(), expected, atol=0.02)  # JFIF prints four digits


@pytest.mark.parametrize(
    ("colour", "expected"),
    [  # worked out by hand from the weights 0.299, 0.587, 0.114
        ((0, 0, 0), (0, 128, 128)),
        ((255, 255, 255), (255, 128, 128)),
        ((255, 0, 0), (76.245, 128 - 76.245 / 1.772, 255.5)),
        ((0, 0, 255), (29.07, 255.5, 128 - 29.07 / 1.402)),
        ((0, 255, 0), (149.685, 128 - 149.685 / 1.772, 128 - 149.685 / 1.402)),
    ],
)
def test_ycbcr_of_pure_colours(colour, expected):
    pixel = torch.tensor(colour, dtype=torch.float64).view(3, 1, 1)
    np.testing.assert_allclose(rgb_to_ycbcr(pixel).flatten().numpy(), expected, atol=1e-9)


def test_ycbcr_agrees_with_pil_to_its_rounding():
    rgb = noise(3, 64, 64)
    pil = Image.fromarray(rgb.permute(1, 2, 0).numpy()).convert("YCbCr")
    difference = rgb_to_ycbcr(rgb).permute(1, 2, 0).numpy() - np.asarray(pil, float)
    assert np.abs(difference).max() < 1.01


def test_every_colour_comes_back():
    levels = torch.arange(256, dtype=torch.uint8)
    for red in range(0, 256, 15):
        green, blue = torch.meshgrid(levels, levels, indexing="ij")
        rgb = torch.stack([torch.full_like(green, red), green, blue])
        assert torch.equal(to_uint8(ycbcr_to_rgb(rgb_to_ycbcr(rgb))), rgb)


def test_rounding_clamps_what_is_outside():
    values = torch.tensor([-3.0, 0.4, 0.6, 254.6, 300.0])
    assert to_uint8(values).tolist() == [0, 0, 1, 255, 255]


def test_mse_is_numpys():
    a, b = noise(3, 3, 12, 14), noise(3, 3, 12, 14, seed=1)
    expected = ((a.numpy().astype(float) - b.numpy()) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(mse(a, b).numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(mse(a.double(), b).numpy(), expected, rtol=1e-14)


def ssim_of_windows(x, y, data_range):
    """Each 11x11 window by itself, as Wang et al. define it."""
    offset = np.arange(11) - 5
    window = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for channel in range(x.shape[0]):
        for i in range(x.shape[1] - 10):
            for j in range(x.shape[2] - 10):
                p, q = (z[channel, i : i + 11, j : j + 11] for z in (x, y))
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return np.mean(values)


@pytest.mark.parametrize("amount", [0.05, 0.3, 1.0])
def test_ssim_is_that_of_explicit_windows(amount):
    a = noise(2, 3, 15, 17)
    b = blurred(a, 5, amount)
    expected = [
        ssim_of_windows(x.numpy().astype(float), y.numpy().astype(float), 255.0) for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(ssim(a.double(), b.double()).numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(ssim(a, b).numpy(), expected, atol=2e-5)


def test_ssim_scales_with_the_range():
    a = noise(2, 3, 16, 16, dtype=torch.float64)
    b = blurred(a, 3, 0.4).double()
    torch.testing.assert_close(ssim(a / 255, b / 255, data_range=1.0), ssim(a, b), rtol=1e-10, atol=0)


def test_ssim_agrees_with_torchmetrics_inside_the_image():
    functional = pytest.importorskip("torchmetrics.functional.image")
    a = noise(3, 3, 32, 24)
    b = blurred(a, 9, 0.2)
    # it averages over reflected borders too, which Wang et al. do not have: they are cut off here
    _, windows = functional.structural_similarity_index_measure(
        a.double(), b.double(), data_range=255.0, sigma=1.5, return_full_image=True
    )
    expected = windows[..., 5:-5, 5:-5].mean((1, 2, 3))
    torch.testing.assert_close(ssim(a.double(), b.double()), expected, rtol=1e-6, atol=0)


def test_ssim_of_equal_images_is_one_also_where_they_are_flat():
    a = noise(2, 3, 20, 20)
    a[1] = 255
    torch.testing.assert_close(ssim(a, a), torch.ones(2), rtol=0, atol=1e-6)


def test_ssim_refuses_what_it_cannot_measure():
    with pytest.raises(ValueError, match="smaller than SSIM's window"):
        ssim(noise(1, 3, 10, 40), noise(1, 3, 10, 40))
    with pytest.raises(ValueError, match="differ in shape"):
        ssim(noise(1, 3, 12, 12), noise(1, 1, 12, 12))
    with pytest.raises(ValueError, match="differ in shape"):
        mse(noise(2, 3, 12, 12), noise(1, 3, 12, 12))


def test_averages_of_two_processes_are_those_of_all_images():
    values = {"a": torch.arange(5.0), "b": torch.tensor([2.0, 0, 0, 0, 1])}
    whole, one, two = (ImageAverages(("a", "b")) for _ in range(3))
    whole.add(values)
    one.add({k: v[:1] for k, v in values.items()})
    two.add({k: v[1:] for k, v in values.items()})
    one.sums = one.sums + two.sums
    assert one.compute() == whole.compute() == {"a": 2.0, "b": 0.6}
    assert np.isnan(ImageAverages(("a",)).compute()["a"])
