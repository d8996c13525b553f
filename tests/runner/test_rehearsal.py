"""Before step 0 a run is gone through in small: what would end it late is refused, and its numbers do not change."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data_trees import few_drawn
from densecl.cli import main
from densecl.records.record import read_record
from densecl.runner import build, cost, rehearsal, run
from tiny_runs import refused, run_words

pytestmark = pytest.mark.usefixtures("one_thread")
OWN = """
import torch
from torch import nn
from densecl.models import Backbone, Features

class Own(Backbone):
    def __init__(self):
        super().__init__()
        self.channels, self.auxiliary_channels, self.body = 4, (), nn.Conv2d(3, 4, 3, 2, 1)

    def build_head(self, channels, outputs):
        return HEAD

    def forward(self, image):
        if image.shape[-1] in REFUSED:
            raise AssertionError
        x = self.body(image).relu()
        return Features(x, (x,), ())
"""
PLAIN, DEEP = "nn.Conv2d(channels, outputs, 1)", "nn.Sequential(nn.Conv2d(channels, 4, 1), nn.Conv2d(4, outputs, 1))"


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Embedded data sets of a few images."""
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    few_drawn(monkeypatch, 12, 4, 6)


def own_backbone(folder, head=PLAIN, refused=()):
    path = folder / "own.py"
    path.write_text(OWN.replace("HEAD", head).replace("REFUSED", repr(tuple(refused))))
    return f"{path}:Own"


def rejected(capsys, voc, named, *more, backbone=None, **which):
    """A run that must be refused before it has a folder, by `--dry-run` as well."""
    words = run_words(voc, voc.parent / "results", *more, "--quiet", **which)
    if backbone:
        words[words.index("--backbone") + 1] = backbone
    for dry in ([], ["--dry-run"]):
        refused(capsys, [*words, *dry], *named)
        assert not list((voc.parent / "results").rglob("result.json"))


SMALL = "encoder.embed_dim=(32,32,32,32),encoder.depths=(1,1,1,1)"


@pytest.mark.parametrize(
    ("encoder", "options", "taken"),
    [
        ("levit_128s", "", "it takes squares of 224: "),
        ("maxvit_rmlp_pico_rw_256", SMALL, "it takes squares of 256, 512, 768: "),
        ("coatnet_pico_rw_224", SMALL, "it takes squares of 224: "),
    ],
)
def test_an_encoder_that_fails_on_the_images_is_refused_with_the_sizes_that_it_takes(
    capsys, voc, encoder, options, taken
):
    named = [f"bisenet(encoder={encoder}) fails on images of 32x32 pixels", f"{taken}choose another encoder"]
    backbone = f"bisenet(encoder={encoder},weights=none,width=8,{options})"
    rejected(capsys, voc, named, backbone=backbone)


def test_a_backbone_that_fails_on_one_size_of_test_images_is_refused(capsys, voc, tmp_path):
    for name, width in (("val_1", 40), ("val_2", 72)):
        picture = next(voc.rglob(f"{name}.jpg"))
        Image.open(picture).resize((width, 32)).save(picture)
        mask = next(voc.rglob(f"{name}.png"))
        Image.fromarray(np.zeros((32, width), np.uint8)).save(mask)
    named = ["backbone Own fails on images of 72x32 pixels (own.py:16)", "choose another backbone or evaluation.size"]
    full = ["--set", "evaluation.size=full"]
    rejected(capsys, voc, named, *full, backbone=own_backbone(tmp_path, refused=[72]), strategy="finetune")
    assert main([*run_words(voc, tmp_path / "out", *full, "--quiet"), "--dry-run"]) == 0


def test_whole_training_images_of_several_sizes_are_refused(capsys, voc):
    picture, mask = next(voc.rglob("train_7.jpg")), next(voc.rglob("train_7.png"))
    Image.open(picture).resize((40, 32)).save(picture)
    Image.fromarray(np.ones((32, 40), np.uint8)).save(mask)
    named = ["training.crop=full", "train_0.jpg has 32x32", "train_7.jpg has 40x32 pixels", "name a crop"]
    options = ["--set", "training.augmentation=flip", "--set", "training.crop=full"]
    rejected(capsys, voc, named, *options)


def test_heads_that_a_method_cannot_start_are_refused_before_step_0(capsys, voc, tmp_path):
    named = ["init_from_background needs heads that are convolutions"]
    rejected(capsys, voc, named, backbone=own_backbone(tmp_path, head=DEEP))
    assert main([*run_words(voc, tmp_path / "out", "--quiet"), "--dry-run"]) == 0


@pytest.mark.parametrize("name", ["val_2", "train_7"])  # train_7 is of step 1 alone
def test_a_cut_image_is_refused_and_whole_ones_are_decoded_once(capsys, voc, monkeypatch, name):
    words = [*run_words(voc, voc.parent / "results"), "--dry-run"]
    assert main(words) == 0
    with monkeypatch.context() as patch:
        patch.setattr("densecl.data.decoded.for_each", lambda *_, **__: pytest.fail("decoded again"))
        assert main(words) == 0
    capsys.readouterr()
    picture = next(voc.rglob(f"{name}.jpg"))
    picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])  # its header is whole
    rejected(capsys, voc, [picture, "cannot be read"])


def test_images_smaller_than_a_metrics_window_are_refused(capsys, drawn, tmp_path):
    words = ["run", "-b", "shapes-3tasks", "-s", "lwf", "--output", str(tmp_path / "out"), "--quiet"]
    words += ["--set", "training.crop=16", "--set", "evaluation.size=8", "--set", "training.iterations=1"]
    refused(capsys, words, "step 2 cannot be evaluated", "8x8", "window of 11", "choose another evaluation.size")
    assert not list((tmp_path / "out").rglob("result.json"))


@pytest.mark.parametrize("strategy", ["mib+replay", "plop", "finetune+ewf", "finetune+ewc", "resblock"])
def test_the_numbers_of_a_run_are_those_without_its_rehearsal(request, tmp_path, monkeypatch, strategy):
    if strategy == "resblock":
        request.getfixturevalue("drawn")
        words = ["run", "-b", "shapes-3tasks", "-s", strategy, "--quiet", "--set", "training.iterations=2"]
    else:
        words = run_words(request.getfixturevalue("voc"), tmp_path, "--quiet", strategy=strategy)
    ends = []
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr(run, "rehearse", lambda *_: None)
        assert main([*words, "--output", str(tmp_path / name), "--no-share"]) == 0
        (folder,) = (path.parent for path in (tmp_path / name).rglob("result.json"))
        steps = read_record(folder / "result.json").steps
        weights = load_file(max(folder.glob("weights/*.safetensors")))
        ends.append(([step.evaluations for step in steps], weights))
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(value, ends[1][1][key]) for key, value in ends[0][1].items())


def test_a_run_that_goes_on_is_not_rehearsed_again(voc, tmp_path, monkeypatch):
    words = run_words(voc, tmp_path / "results", "--quiet")
    assert main(words) == 0
    (path,) = (tmp_path / "results").rglob("result.json")
    path.write_text(path.read_text().replace('"status": "finished"', '"status": "interrupted"'))
    monkeypatch.setattr(run, "rehearse", lambda *_: pytest.fail("rehearsed"))
    assert main(words) == 0


def test_a_rehearsal_leaves_network_tasks_and_random_numbers_alone(voc, tmp_path):
    from densecl.runner.build import build_network, build_scenario
    from densecl.runner.plan import make_plan

    words = run_words(voc, tmp_path)
    assignments = [words[k + 1] for k, word in enumerate(words) if word == "--set"]
    backbone = words[words.index("--backbone") + 1]
    plan = make_plan("voc15-5", "mib+replay", backbone=backbone, assignments=assignments, data=Path(voc), device="cpu")
    scenario, _ = build_scenario(plan)
    network = build_network(plan.settings)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    rehearsal.rehearse(plan, scenario, network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.n_outputs == 0
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert cost.rehearse is rehearsal.rehearse


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_network_that_memory_does_not_hold_is_refused_in_one_line(capsys, voc, tmp_path, monkeypatch, more):
    def too_large(*_arguments):
        return torch.empty(1 << 52)

    monkeypatch.setattr(build, "build_backbone", too_large)
    refused(capsys, run_words(voc, tmp_path / "out", *more), "there is no memory for the network bisenet(")
    assert not (tmp_path / "out").exists()
