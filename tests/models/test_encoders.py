"""Encoders: stages of timm's networks, weights from files, and one clear error for everything that does not fit."""

import io
import random

import pytest
import safetensors.torch
import timm
import torch

from densecl.errors import DataError, SettingError, UnknownNameError
from densecl.masking.store import save_masks
from densecl.models.encoders import build_encoder

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "strides", "channels"),
    [
        ("mini", (4, 8, 16), (48, 96, 160)),
        ("resnet18", (4, 8, 16, 32), (64, 128, 256, 512)),
        ("convnext_atto", (4, 8, 16, 32), (40, 80, 160, 320)),
        ("mobilenetv3_small_050", (4, 8, 16, 32), (8, 16, 24, 288)),
    ],
)
def test_maps_have_the_promised_strides_and_channels(name, strides, channels):
    encoder = build_encoder(name, "none").eval()
    assert encoder.strides == strides
    assert encoder.channels == channels
    with torch.no_grad():
        maps = encoder(torch.randn(1, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [(1, c, 64 // s, 96 // s) for c, s in zip(channels, strides, strict=True)]


TINY_SWIN = {"embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2), "window_size": 4}


@pytest.mark.parametrize(
    ("name", "options", "channels", "stride"),
    [
        ("swin_tiny_patch4_window7_224", {}, 96, 4),
        ("swin_base_patch4_window12_384", {"depths": (2, 2)}, 128, 4),
        ("swinv2_tiny_window8_256", {"depths": (2, 2)}, 96, 4),
        ("pvt_v2_b0", {}, 32, 4),
        ("convnext_atto", {}, 40, 4),
        ("vit_tiny_patch16_224", {"embed_dim": 24, "num_heads": 1, "depth": 3}, 24, 16),
        ("mini_swin", {}, 32, 4),
        ("mini_vit", {}, 96, 4),
    ],
)
def test_a_map_as_high_as_it_has_channels_is_not_transposed(name, options, channels, stride):
    with torch.device("meta"):
        encoder = build_encoder(name, "none", options=options).eval()
        shallow = encoder(torch.empty(1, 3, channels * stride, (channels + 3) * stride))[0]
    assert shallow.shape == (1, channels, channels, channels + 3)


@pytest.mark.parametrize("size", [(64, 96), (49, 67), (20, 33)])
def test_maps_of_a_transformer_are_those_of_timm_at_any_size(tmp_path, size):
    torch.manual_seed(0)
    whole = timm.create_model("swin_tiny_patch4_window7_224", strict_img_size=False, **TINY_SWIN).eval()
    torch.save(whole.state_dict(), tmp_path / "swin.pth")
    encoder = build_encoder("swin_tiny_patch4_window7_224", str(tmp_path / "swin.pth"), options=TINY_SWIN).eval()
    image = torch.randn(1, 3, *size)
    sides = [-(-side // 4) * 4 for side in size]
    grown = torch.nn.functional.interpolate(image, size=sides, mode="bilinear", align_corners=False)
    with torch.no_grad():
        for own, expected in zip(
            encoder(image), whole.forward_intermediates(grown, intermediates_only=True), strict=True
        ):
            assert own.equal(expected)
            assert own.shape[1] in (16, 32)


def test_the_map_of_a_plain_transformer_is_that_of_its_last_block():
    encoder = build_encoder("mini_vit").eval()
    image = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        (expected,) = encoder.net.model.forward_intermediates(image, 1, intermediates_only=True)
        (own,) = encoder(image)
    assert len(encoder.net.model.blocks) == 4
    assert own.equal(expected)


def test_options_reach_the_layers_of_an_encoder():
    with torch.device("meta"):
        encoder = build_encoder("swin_tiny_patch4_window7_224", "none", options={"drop_path_rate": 0.3, "img_size": 56})
    rates = [m.drop_prob for m in encoder.modules() if type(m).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.3)
    assert encoder.side == 56
    with torch.device("meta"):
        wider = build_encoder("mini_vit", "none", options={"embed_dim": 48})
    assert wider.channels == (48,)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "swin_tiny_patch4_window7_224",
            {"drop_path": 0.1},
            "option of encoder swin_tiny.*did you mean 'drop_path_rate'",
        ),
        ("resnet18", {"checkpoint_path": "x.pth"}, "option of encoder resnet18 'checkpoint_path'"),
        ("resnet18", {"img_size": 64}, "cannot be cut into stages with encoder.img_size=64"),
        ("mini", {"img_size": 64}, "'mini' has no options"),
    ],
)
def test_options_that_an_encoder_does_not_have_are_refused(name, options, message):
    with pytest.raises((SettingError, UnknownNameError), match=message) as caught:
        build_encoder(name, "none", options=options)
    assert "\n" not in str(caught.value)


def test_small_transformers_have_a_few_hundred_thousand_parameters():
    counts = {name: sum(p.numel() for p in build_encoder(name).parameters()) for name in ("mini_swin", "mini_vit")}
    # a block of width d: 12 d^2 + 13 d, of Swin besides (2w - 1)^2 biases a head; see the options of both
    block = {d: 12 * d * d + 13 * d for d in (32, 64, 96, 128)}
    swin = sum(2 * block[d] for d in (32, 64, 128)) + 2 * 121 * (1 + 2) + 2 * 25 * 4  # windows of 6, 6 and 3 pixels
    merging = sum(4 * d * 2 * d + 2 * 4 * d for d in (32, 64))
    assert counts["mini_swin"] == 3 * 16 * 32 + 32 + 2 * 32 + swin + merging
    assert (
        counts["mini_vit"] == 3 * 16 * 96 + 96 + 4 * block[96] + (144 + 1) * 96 + 96
    )  # without the last normalisation


def test_mini_takes_widths():
    assert build_encoder("mini", widths=(8, 8, 16, 24)).channels == (8, 16, 24)
    with pytest.raises(SettingError, match="four positive numbers"):
        build_encoder("mini", widths=(8, 16))
    with pytest.raises(SettingError, match="its own widths"):
        build_encoder("resnet18", "none", widths=(8, 8, 16, 24))


@pytest.mark.parametrize("form", ["safetensors", "pth", "module", "nested"])
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_weights_of_a_whole_classifier_are_read_from_a_file(tmp_path, name, form):
    torch.manual_seed(3)
    whole = timm.create_model(name, pretrained=False)
    state = {("module." if form == "module" else "") + key: x.contiguous() for key, x in whole.state_dict().items()}
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state} if form == "nested" else state, path)
    encoder = build_encoder(name, str(path)).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(image)[-1], whole.eval().forward_intermediates(image)[1][-1])


def test_mini_reads_a_file_too(tmp_path):
    source = build_encoder("mini")
    torch.save(source.state_dict(), tmp_path / "mini.pth")
    target = build_encoder("mini", str(tmp_path / "mini.pth"))
    assert all(a.equal(b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_weights_that_do_not_fit_name_the_first_mismatch(tmp_path):
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    torch.save({k: v for k, v in state.items() if k not in ("bn1.bias", "layer1.0.bn1.bias")}, tmp_path / "lacks.pth")
    with pytest.raises(DataError, match=r"lacks\.pth has no weights 'bn1\.bias'"):
        build_encoder("resnet18", str(tmp_path / "lacks.pth"))
    torch.save(state | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "shape.pth")
    with pytest.raises(DataError, match=r"'conv1\.weight' of shape \(64, 1, 7, 7\), not \(64, 3, 7, 7\)"):
        build_encoder("resnet18", str(tmp_path / "shape.pth"))


class Executed:
    """Would run code if a file that holds it were unpickled."""

    def __reduce__(self):
        return (print, ("executed",))


def test_files_that_are_missing_broken_or_hold_code_are_refused(tmp_path, capfd):
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save({"a": Executed()}, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, message in [
        ("absent.pth", "no weights file"),
        ("text.pth", "cannot read weights"),
        ("text.safetensors", "cannot read weights"),
        ("code.pth", "cannot read weights"),
        ("list.pth", "holds a list"),
    ]:
        with pytest.raises(DataError, match=message) as caught:
            build_encoder("mini", str(tmp_path / name))
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert "executed" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 46827520\n", "pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html><head><title>resnet18</title>", "a saved web page"),
        (b"see https://example.org for weights\n", "a text file"),
        (b"densecl checkpoint 1\nabc", "a checkpoint of a run"),
        (b"\x80\x02K\x01", "it is damaged"),
        (b"PK\x03\x04" + bytes(40), "it is damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_often_taken_for_weights_is_called_what_it_is(tmp_path, content, kind, suffix):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"cannot read weights from .*file{suffix}: .*{kind}") as caught:
        build_encoder("mini", str(path))
    assert "weights_only" not in str(caught.value)


def test_masks_are_no_weights(tmp_path):
    save_masks({"a": torch.ones(3).bool()}, tmp_path / "masks.safetensors")
    with pytest.raises(DataError, match="it holds masks"):
        build_encoder("mini", str(tmp_path / "masks.safetensors"))


def test_400_damaged_files_of_torch_are_each_refused_in_one_line_or_read(tmp_path):
    buffer, rng = io.BytesIO(), random.Random(0)
    torch.save({"a": torch.arange(8.0), "b": {"c": [1, (2, "x")]}}, buffer)
    path = tmp_path / "damaged.pth"
    refused = 0
    for _ in range(400):
        bad = bytearray(buffer.getvalue())
        for _ in range(rng.randrange(1, 4)):
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        path.write_bytes(bad[: rng.choice([len(bad), rng.randrange(len(bad))])])
        with pytest.raises(DataError) as caught:
            build_encoder("mini", str(path))
        refused += "cannot read weights" in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)
    assert refused > 100


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    create = timm.create_model

    def offline(name, *args, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("Name or service not known\nsecond line")
        return create(name, *args, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(DataError, match="--weights FILE or --weights none") as caught:
        build_encoder("resnet18")
    assert "Name or service not known" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_encoders_get_the_nearest_names():
    with pytest.raises(UnknownNameError, match="did you mean 'resnet50'"):
        build_encoder("resnet5O", "none")
    with pytest.raises(UnknownNameError, match="did you mean 'mini'"):
        build_encoder("minni", "none")
    with pytest.raises(UnknownNameError) as caught:
        build_encoder("qqqqqqqqqq", "none")
    assert len(str(caught.value)) < 200


def test_the_same_seed_draws_the_same_weights():
    def draw(name):
        torch.manual_seed(7)
        return [p.detach() for p in build_encoder(name, "none").parameters()]

    for name in ("mini", "resnet18"):
        assert all(a.equal(b) for a, b in zip(draw(name), draw(name), strict=True))
