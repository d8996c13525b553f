"""Bits and files of masks, sizes by formula, similarity: against NumPy, the real network and the papers' tables."""

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

import size_formulas
from densecl.errors import DataError, DenseCLError
from densecl.masking.analysis import all_ones, similarity, zeroed, zeroed_in_all
from densecl.masking.binary import MaskSettings, add_masks, begin, masks
from densecl.masking.bits import _shifted, bits_for, multiply, pack, packed_bytes, unpack
from densecl.masking.packnet import add_owners
from densecl.masking.parametrized import WeightView, maskable, views
from densecl.masking.store import load_masks, save_masks
from densecl.models import Network, ResBlockNet, UNet
from densecl.strategies import storage

torch.set_num_threads(1)


def network(width=4, task=None, kind="binary", seed=1):
    torch.manual_seed(0)
    net = Network(UNet(width, 2))
    net.grow(3)
    add_masks(net)
    if task:
        begin(net, task, MaskSettings(kind, "random"), seed)
    return net


def weight_shapes(net):
    return {name: tuple(weight.shape) for name, weight, _ in views(net, WeightView)}


# ---- bits


@given(st.integers(1, 8), st.lists(st.integers(0, 255), max_size=70))
def test_numbers_come_back_from_their_bits(bits, numbers):
    values = torch.tensor([n % (1 << bits) for n in numbers], dtype=torch.uint8)
    packed = pack(values, bits)
    assert packed.numel() == packed_bytes(len(values), bits) == bits * int(np.ceil(len(values) / 8))
    assert unpack(packed, (len(values),), bits).to(torch.uint8).equal(values)
    if bits == 1:
        assert _shifted(packed, len(values)).to(torch.uint8).equal(values)


def test_bits_lie_as_packbits_has_them():
    mask = torch.tensor([[1, 0, 0, 0, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    assert pack(mask).tolist() == [0b10000011, 0b10000000]
    assert pack(torch.tensor([3, 1, 2], dtype=torch.uint8), 2).tolist() == [0b11000000, 0b10100000]
    assert [bits_for(n) for n in (1, 2, 3, 4, 5, 7, 8, 9)] == [1, 1, 2, 2, 3, 3, 3, 4]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="into 1 bits"):
        pack(torch.tensor([2], dtype=torch.uint8))
    with pytest.raises(ValueError, match="3 bytes are not 4 numbers of 2 bits"):
        unpack(torch.zeros(3, dtype=torch.uint8), (4,), 2)


@pytest.mark.parametrize("shape", [(3,), (7, 11), (70_001,), (16, 16, 3, 3)])
@pytest.mark.parametrize(("bits", "factors"), [(1, (0, 1)), (2, (0, 1, 0, -1)), (3, (0, 1, 1, 0, 0, 0, 0, 0))])
@pytest.mark.parametrize("form", ["float32", "float64", "bfloat16", "last"])
def test_a_weight_is_multiplied_by_the_factor_of_each_packed_number(shape, bits, factors, form):
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(0, 1 << bits, shape, dtype=torch.uint8, generator=generator)
    if bits == 2:
        numbers[numbers == 2] = 0
    weight = torch.randn(shape, generator=generator)
    if form == "last" and len(shape) == 4:
        weight = weight.to(memory_format=torch.channels_last)
    elif form != "last":
        weight = weight.to(getattr(torch, form))
    expected = weight.double().numpy() * np.array(factors)[numbers.numpy()]
    out = torch.full_like(weight, 5)
    result = multiply(pack(numbers, bits), weight, factors, out)
    assert result.data_ptr() == out.data_ptr()
    assert (result.double().numpy() == expected).all()
    assert (multiply(pack(numbers, bits), weight, factors).double().numpy() == expected).all()


# ---- files


@pytest.mark.parametrize(("kind", "bits"), [("binary", 1), ("ternary", 2)])
def test_masks_are_restored_bit_for_bit_and_stored_in_as_many_bits(tmp_path, kind, bits):
    net = network(task="t", kind=kind)
    path = tmp_path / "t.safetensors"
    save_masks(masks(net, "t"), path, note="t")
    shapes = weight_shapes(net)
    content = bits * sum(int(np.ceil(np.prod(s) / 8)) for s in shapes.values())
    stored = safetensors.torch.load_file(path)
    assert sum(t.numel() for t in stored.values()) == content
    assert next(iter(shapes)) == "backbone.down.0.0.weight"
    assert set(stored) == set(shapes)
    loaded = load_masks(path, weight_shapes(network()))
    assert list(loaded) == list(masks(net, "t"))
    assert all(m.equal(loaded[n]) and m.dtype == loaded[n].dtype for n, m in masks(net, "t").items())


@pytest.mark.parametrize("tasks", [1, 3, 5])
def test_owners_are_restored_and_stored_in_few_bits(tmp_path, tasks):
    generator = torch.Generator().manual_seed(0)
    maps = {n: torch.randint(0, tasks + 1, (5, 9), dtype=torch.uint8, generator=generator) for n in "ab"}
    save_masks(maps, tmp_path / "owners.safetensors")
    loaded = load_masks(tmp_path / "owners.safetensors")
    assert all(loaded[n].to(torch.uint8).equal(m) for n, m in maps.items())
    stored = safetensors.torch.load_file(tmp_path / "owners.safetensors")
    assert stored["a"].numel() == int(np.ceil(np.log2(tasks + 1))) * 6


def test_masks_of_another_backbone_are_refused_with_the_first_that_differs(tmp_path):
    path = tmp_path / "t.safetensors"
    save_masks(masks(network(task="t"), "t"), path)
    wide = weight_shapes(network(width=8))
    with pytest.raises(DataError, match=r"'backbone\.down\.0\.0\.weight' of shape \(4, 3, 3, 3\), not \(8, 3, 3, 3\)"):
        load_masks(path, wide)
    torch.manual_seed(0)
    other = Network(ResBlockNet(4, 1))
    add_masks(other)
    with pytest.raises(DataError, match=r"no mask of 'backbone\.encoder\.0\.0\.weight', shape \(4, 3, 7, 7\)"):
        load_masks(path, weight_shapes(other))
    fewer = dict(list(weight_shapes(network()).items())[:-1])
    with pytest.raises(DataError, match=r"'backbone\.merge\.1\.3\.weight'.*which the network lacks"):
        load_masks(path, fewer)


def test_broken_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    save_masks(masks(network(task="t"), "t"), path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(content)
    (tmp_path / "torn.safetensors").write_bytes(content[:-40])
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "weights.safetensors")
    cases = {
        "flipped": "checksum",
        "torn": "cannot be read",
        "weights": "expected a file of",
        "absent": "cannot be read",
    }
    for name, message in cases.items():
        with pytest.raises(DenseCLError, match=message):
            load_masks(tmp_path / f"{name}.safetensors")


def test_shapes_are_named_alike_for_masks_and_owners():
    net = Network(UNet(4, 2))
    add_owners(net)
    assert weight_shapes(net) == weight_shapes(network())


# ---- sizes


@pytest.mark.parametrize(("width", "depth"), [(64, 4), (16, 4), (8, 2), (4, 1)])
def test_counts_by_formula_are_those_of_the_network(width, depth):
    with torch.device("meta"):
        backbone = UNet(width, depth, norm="instance")
    counts = size_formulas.unet_counts(width, depth)
    decoder = sum(p.numel() for name in backbone.decoder_parts for p in getattr(backbone, name).parameters())
    assert counts.decoder == decoder
    assert counts.encoder == sum(p.numel() for p in backbone.down.parameters())
    assert counts.backbone == sum(p.numel() for p in backbone.parameters())
    assert counts.weights == sum(layer.weight.numel() for layer in maskable(backbone, ()).values())


def test_the_sizes_of_the_papers_follow_from_the_counts():
    counts, mib = size_formulas.unet_counts(), size_formulas.mebibytes
    head81, head21 = size_formulas.head_parameters(64, 81), size_formulas.head_parameters(64, 21)
    assert counts.backbone + head81 == 14_786_193
    mask = storage.mask_bytes(counts.weights)
    assert mib(4 * (counts.backbone + head81)) == pytest.approx(56.405, abs=5e-4)
    assert mib(4 * counts.encoder) == pytest.approx(35.88, abs=5e-3)
    assert mib(4 * (counts.decoder + head81)) == pytest.approx(20.528, abs=5e-4)
    assert mib(mask) == pytest.approx(1.7614, abs=5e-5)
    assert mib(mask + 4 * head21) == pytest.approx(1.7666, abs=5e-5)
    assert mib(mask + 4 * head81) == pytest.approx(1.7815, abs=5e-5)


@pytest.mark.parametrize(
    ("tasks", "scratch", "decoder", "piggyback"), [(3, 169.2, 97.4, 60.0), (5, 282.0, 138.4, 63.6)]
)
def test_totals_as_the_papers_add_their_rounded_rows(tasks, scratch, decoder, piggyback):
    counts, head, mib = size_formulas.unet_counts(), size_formulas.head_parameters(64, 81), size_formulas.mebibytes
    whole = mib(4 * (counts.backbone + head))
    rows = whole, mib(4 * (counts.decoder + head)), mib(storage.mask_bytes(counts.weights) + 4 * head)
    assert [size_formulas.rounded_total(whole, row, tasks) for row in rows] == [scratch, decoder, piggyback]


@pytest.mark.parametrize(("outputs", "exact"), [((81, 21, 2), 59.9), ((81, 21, 2, 3, 3), 63.5)])
def test_exact_totals_of_piggyback(outputs, exact):
    heads = [size_formulas.head_parameters(64, n) for n in outputs]
    total = storage.sequence_bytes("piggyback", size_formulas.unet_counts(), heads)
    assert round(size_formulas.mebibytes(total), 1) == exact


def test_sequences_are_sums_of_what_each_method_keeps():
    counts, heads = storage.Counts(100, 60, 144, 10), [7, 5, 3]
    expected = {
        "scratch": 4 * (3 * 160 + 15),
        "finetune": 4 * (160 + 15),
        "decoder": 4 * (100 + 3 * 60 + 15),
        "piggyback": 4 * (160 + 15 + 2 * 10) + 2 * 144 / 8,
        "packnet": 4 * (160 + 15 + 2 * 10) + 2 * 144 / 8,  # two bits for three tasks and nobody
        "resblock": 4 * (160 + 15 + 3 * 50),
    }
    assert {m: storage.sequence_bytes(m, counts, heads, block=50) for m in expected} == expected


# ---- what masks have in common


def kappa_by_table(one, other, values):
    """Cohen's kappa from the contingency table, in NumPy."""
    table = np.array([[np.mean((one == a) & (other == b)) for b in values] for a in values])
    chance = (table.sum(0) * table.sum(1)).sum()
    return np.trace(table), (np.trace(table) - chance) / (1 - chance)


@pytest.mark.parametrize("kind", ["binary", "ternary"])
def test_similarity_is_that_of_the_contingency_table(kind):
    one = masks(network(task="t", kind=kind, seed=1), "t")
    other = masks(network(task="t", kind=kind, seed=2), "t")
    other = {n: torch.where(torch.rand(m.shape) < 0.7, one[n], m) for n, m in other.items()}
    flat = [torch.cat([m.flatten().to(torch.uint8) for m in masks_.values()]).numpy() for masks_ in (one, other)]
    matching, kappa = kappa_by_table(*flat, (0, 1, 3))
    result = similarity(one, other)
    assert result == similarity(other, one)
    assert result.matching == pytest.approx(matching)
    assert result.kappa == pytest.approx(kappa)
    assert 0.2 < result.kappa < 0.95
    assert zeroed_in_all(one) == pytest.approx((flat[0] == 0).mean())
    name = next(iter(one))
    assert zeroed(one)[name] == pytest.approx(float((one[name] == 0).double().mean()))


def test_similarity_to_the_first_task_is_one_minus_the_zeroed_share():
    one = masks(network(task="t"), "t")
    assert similarity(one, all_ones(one)).matching == pytest.approx(1 - zeroed_in_all(one))
    assert similarity(one, all_ones(one)).kappa == pytest.approx(0)
    assert similarity(one, one) == (1, 1)
    assert np.isnan(similarity(all_ones(one), all_ones(one)).kappa)


def test_masks_of_different_networks_have_no_similarity():
    with pytest.raises(ValueError, match="not of the same parameters"):
        similarity(masks(network(task="t"), "t"), masks(network(8, task="t"), "t"))
