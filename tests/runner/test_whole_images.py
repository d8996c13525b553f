"""Tasks of whole images beside tasks of pixels: learnt by every method of sequences, recorded, predicted, given."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from data_trees import class_tree, few_drawn, noise_image
from densecl import predict
from densecl.check.tiny import TRAINING, tiny_loop, tiny_network
from densecl.cli import main
from densecl.data.dataset import Sample
from densecl.masking import packnet
from densecl.records.record import read_record
from densecl.runner.evaluation import evaluate
from densecl.runner.methods import parse_method
from densecl.runner.pictures import task_picture
from densecl.settings.recipe import LaterSettings
from densecl.streams.scenario import TaskSource, task_sequence
from densecl.tasks import Segmentation
from densecl.tasks.classification import Classification

NAMES = ("red", "green", "blue", "grey", "black", "white")
BRIEF = TRAINING.model_copy(update={"epochs": None, "iterations": 3, "later": LaterSettings(lr=1e-3)})


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    pass


class Tiles:
    """Images in memory whose class is their colour; masks label their upper half."""

    name, split, has_background, has_masks = "tiles", "train", True, True
    class_names = ("upper",)

    def __init__(self, n, seed, truth):
        rng = np.random.default_rng(seed)
        self.truth, self.numbers = truth, rng.integers(0, len(NAMES), n)
        self.ids, self.image_files = tuple(f"{seed}-{i}" for i in range(n)), (__file__,) * n
        self.mask_files = self.image_files
        self.images = rng.integers(0, 256, (n, 3, 32, 32), np.uint8)
        self.images[:, 0] = 40 * self.numbers[:, None, None]

    def __len__(self):
        return len(self.ids)

    def read(self, i):
        mask = torch.zeros(32, 32, dtype=torch.uint8)
        mask[:16] = 1
        whole = torch.full((1, 32, 32), 1.0 + self.numbers[i])
        return Sample(torch.from_numpy(self.images[i]), whole if self.truth == "class" else mask)

    def read_extra(self, _i):
        return {}


def scenario(given=False):
    tasks = (
        Classification("colours", class_names=NAMES, pretrained=given),
        Segmentation("halves", classes=1),
        Classification("again", class_names=NAMES),
    )
    readers = [
        (Tiles(12, 2 * k, t.truth or "labels"), Tiles(7, 2 * k + 1, t.truth or "labels")) for k, t in enumerate(tasks)
    ]
    return task_sequence([TaskSource(task, *pair) for task, pair in zip(tasks, readers, strict=True)])


METHODS = [
    "finetune", "lwf", "had", "finetune+ewc", "finetune+replay(memory=4)", "scratch", "classifier", "decoder", "norms",
    "adapter", "lora", "taps", "wsn", "packnet", "piggyback", "piggyback(mask_first=True,bn=trained)",
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_whole_images_and_pixels_one_after_the_other(method):
    loop = tiny_loop(parse_method(method), scenario(), tiny_network("unet", width=4, depth=2), BRIEF)
    before = None
    for experience in loop.scenario.experiences:
        loop.train([experience])
        scores = evaluate(loop, experience.step, 4)
        before = before or scores[0].metrics
    errors, _, again = (evaluation.metrics for evaluation in scores)
    assert all(0 <= m[key] <= 1 for m in (errors, again) for key in ("top1_error", "top5_error"))
    assert errors["top5_error"] <= errors["top1_error"]
    told = parse_method(method).told
    assert not told or {k: errors[k] for k in before if k != "forgetting"} == {
        k: v for k, v in before.items() if k != "forgetting"
    }
    assert task_picture(loop, 0).shape == (3, 4 * 32, 3 * 32)


def test_the_error_of_a_run_is_that_of_its_own_logits():
    loop = tiny_loop(parse_method("finetune"), scenario(), tiny_network("unet", width=4, depth=2), BRIEF)
    loop.train(loop.scenario.experiences[:1])
    reader = loop.scenario.tests_of(0).reader
    images = torch.from_numpy(reader.images).float() / 255
    with torch.no_grad():
        logits = loop.network.eval()((images - loop.normalisation.mean) / loop.normalisation.std).logits
    wrong = (logits.flatten(1).argmax(1).numpy() != reader.numbers).mean()
    assert evaluate(loop, 0, 3)[0].metrics["top1_error"] == pytest.approx(wrong)


# ---- from the command


@pytest.fixture
def marks(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    few_drawn(monkeypatch, 16, 4, 8)
    return ["--device", "cpu", "--output", str(tmp_path / "o"), "--quiet", *(f for s in SHORT for f in ("--set", s))]


SHORT = ("training.iterations=2", "training.later.iterations=1", "training.batch=4")


def test_the_embedded_sequence_runs_is_recorded_tabled_and_predicted(marks, tmp_path, capsys):
    assert main(["run", "-b", "marks-4tasks", "-s", "piggyback", *marks]) == 0
    path = next((tmp_path / "o").rglob("result.json"))
    record = read_record(path)
    assert [(t.name, t.primary, t.higher_is_better, len(t.class_names)) for t in record.tasks] == [
        ("shape", "top1_error", False, 8),
        ("hue", "top1_error", False, 6),
        ("texture", "top1_error", False, 5),
        ("count", "top1_error", False, 4),
    ]
    last = [set(e.metrics) for e in record.steps[-1].evaluations]
    assert last == [{"top1_error", "top5_error", "forgetting"}] * 2 + [{"top1_error", "forgetting"}] * 2
    assert record.steps[-1].evaluations[0].metrics["forgetting"] == 0
    capsys.readouterr()
    assert main(["table", str(tmp_path / "o")]) == 0
    out = capsys.readouterr().out
    assert all(
        word in out for word in ("shape top-1 err", "shape top-5 err", "image-level: shape, hue, texture, count")
    )
    assert "texture top-5" not in out
    assert main(["evaluate", str(path.parent), "--device", "cpu"]) == 0
    noise_image(tmp_path / "photo.png", (60, 90))
    (found,) = predict(path.parent, tmp_path / "photo.png", tmp_path / "p", task="hue")
    assert set(found.shares) <= set(record.tasks[1].class_names)
    assert len(found.shares) == 5
    assert sum(found.shares.values()) <= 1 + 1e-6
    assert (tmp_path / "p" / "photo.hue.png").is_file()
    assert main(["inspect", str(path.parent), "--masks"]) == 0


def test_image_level_is_said_where_a_benchmark_is_named(capsys):
    from densecl.settings.catalogue import benchmark_recipe, entries

    assert main(["show", "marks-4tasks"]) == 0
    assert "task 0  shape: classification (image-level) on marks(by=shape), 1000 iterations" in capsys.readouterr().out
    for entry in entries("benchmarks"):
        recipe, split = benchmark_recipe(entry.name)
        tasks = recipe.split[split].sections().get("stream", {}).get("tasks", ()) if split in recipe.split else ()
        if any(dict(task).get("kind") == "classification" for task in tasks):
            assert "image-level" in entry.summary


def test_other_classes_in_test_images_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    recipe = tmp_path / "mine" / "benchmarks" / "own.toml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(
        'family = "own-"\nsummary = "image-level"\nclasses = 1\nsplits = ["1task"]\nbackbone = "unet(width=4)"\n'
        '[data]\nname = "shapes"\n[stream]\nkind = "tasks"\n[[stream.tasks]]\nname = "x"\nkind = "classification"\n'
        'data = "shapes"\n[training]\ncrop = 32\n'
    )
    few_drawn(monkeypatch, 8, 2, 2)
    words = ["run", "-b", "own-1task", "-s", "finetune", "--catalogue", str(tmp_path / "mine"), "--dry-run"]
    assert main(words) == 2
    assert "the data set 'shapes' has no class" in capsys.readouterr().err


# ---- the task of pretrained weights


@pytest.mark.parametrize("method", ["classifier", "piggyback", "scratch", "packnet"])
def test_a_given_task_is_scored_and_not_trained(method, tmp_path, monkeypatch):
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", num_classes=len(NAMES)).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    network = tiny_network("trunk", encoder="resnet10t", weights=str(tmp_path / "w.safetensors"))
    loop = tiny_loop(parse_method(method), scenario(given=True), network, BRIEF)
    first = loop.scenario.experiences[0]
    loop.train([first])
    reader = loop.scenario.tests_of(0).reader
    images = (torch.from_numpy(reader.images).float() / 255 - loop.normalisation.mean) / loop.normalisation.std
    with torch.no_grad():
        found, wanted = loop.network.eval()(images).logits.flatten(1), net(images)
    if method == "packnet":  # half of the weights are pruned, and the others trained for half as long
        assert loop.planned == 2
        assert packnet.phase(loop.network) == packnet.Phase.FINISHED
        return
    assert loop.planned == 0
    torch.testing.assert_close(found, wanted)


def test_folders_of_classes_run_with_a_given_network(tmp_path, monkeypatch, capsys):
    """The whole way of the benchmarks of Mallya et al., with a small network and few images."""
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    for name in ("imagenet", "places365"):
        for split in ("train", "val"):
            class_tree(tmp_path / "data" / name, split, ("a", "b", "c"), 3)
    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t", num_classes=3).state_dict(), tmp_path / "w.safetensors")
    backbone = f"trunk(encoder=resnet10t, weights={tmp_path / 'w.safetensors'})"
    words = ["--backbone", backbone, "--data", str(tmp_path / "data"), "--output", str(tmp_path / "o"), "--quiet"]
    words += ["--set", "training.iterations=2", "--set", "training.batch=4", "--set", "training.crop=32"]
    words += ["--set", "evaluation.size=32", "--set", "loader.workers=0", "--device", "cpu"]
    assert main(["run", "-b", "imagenet-2tasks", "-s", "piggyback", *words]) == 0
    record = json.loads(next((tmp_path / "o").rglob("result.json")).read_text())
    assert [step["iterations"] for step in record["steps"]] == [0, 2]
    assert record["steps"][0]["evaluations"][0]["metrics"] == {
        key: value for key, value in record["steps"][1]["evaluations"][0]["metrics"].items() if key != "forgetting"
    } | {"forgetting": None}
