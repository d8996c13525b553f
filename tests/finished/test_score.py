"""Label maps and networks of other codes are scored by the rules of a benchmark; what is wrong with them is named."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from densecl.cli import main
from densecl.metrics.iou import class_metrics
from densecl.records.record import read_record
from tiny_runs import SIZE, refused

pytestmark = pytest.mark.usefixtures("one_thread")
BENCHMARK = "voc15-5(size=full)"
GROUPS = [list(range(1, 16)), list(range(16, 21))]


def truth(voc):
    """The masks of the test images by name."""
    folder = voc / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    return {path.stem: np.array(Image.open(path)) for path in sorted(folder.glob("val_*.png"))}


def guessed(voc, highest, seed=0):
    """Maps with a quarter of the pixels wrong, and void and classes above the highest as background."""
    rng = np.random.default_rng(seed)
    maps = {}
    for name, mask in truth(voc).items():
        wrong = rng.random(mask.shape) < 0.25
        maps[name] = np.where(wrong, rng.integers(0, highest + 1, mask.shape), np.where(mask > highest, 0, mask))
    return maps


def write(folder, maps, kind=np.uint8):
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in maps.items():
        Image.fromarray(ids.astype(kind)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def maps(voc, tmp_path):
    """A folder with maps of both steps."""
    for step, highest in enumerate((15, 20)):
        write(tmp_path / "maps" / f"step{step}", guessed(voc, highest, step))
    return tmp_path / "maps"


def words(voc, predictions, *more, name="Theirs", benchmark=BENCHMARK):
    own = ["--name", name] if name else []
    return ["score", predictions, "-b", benchmark, "--data", voc, "--output", voc.parent / "results", *own, *more]


def scored(voc, predictions, *more, **options):
    """The record that a command writes."""
    output = voc.parent / "results"
    before = {path: path.stat().st_mtime_ns for path in output.rglob("result.json")}
    assert main([str(word) for word in words(voc, predictions, *more, **options)]) == 0
    (path,) = (p for p in output.rglob("result.json") if before.get(p) != p.stat().st_mtime_ns)
    return read_record(path)


def counted(voc, maps):
    """The confusion matrix of maps in the size of the masks, pixel by pixel."""
    matrix = np.zeros((21, 21), int)
    for name, mask in truth(voc).items():
        np.add.at(matrix, (mask[mask != 255], maps[name][mask != 255]), 1)
    return matrix


# ---- numbers


def test_the_matrix_counts_every_pixel_and_the_scores_follow_from_it(voc, maps):
    record = scored(voc, maps)
    assert (record.status, record.strategy, record.backbone) == ("finished", "Theirs", "undeclared")
    before = []
    for step, highest in enumerate((15, 20)):
        evaluation = record.steps[step].evaluations[0]
        matrix = counted(voc, guessed(voc, highest, step))
        assert np.array_equal(evaluation.confusion, matrix)
        known = {"has_background": True, "labels": "plop2021"}
        assert evaluation.metrics == class_metrics(matrix, GROUPS, step, before, **known)
        before.append(evaluation.metrics["iou"])
    assert record.steps[1].evaluations[0].metrics["forgetting"] is not None
    assert record.planned_steps == GROUPS


def test_the_truth_itself_has_a_mean_of_one_however_it_is_cut(voc, tmp_path):
    perfect = {name: np.where(mask == 255, 0, mask) for name, mask in truth(voc).items()}
    write(tmp_path / "perfect", perfect)
    for size in ("full", "20", "40"):
        record = scored(voc, tmp_path / "perfect", "--step", "1", benchmark=f"voc15-5(size={size})")
        matrix = np.array(record.steps[1].evaluations[0].confusion)
        assert np.array_equal(matrix, np.diag(matrix.diagonal()))
        assert matrix.sum() > 0
        assert record.steps[1].evaluations[0].metrics["miou"]["all"] == 1


def test_ids_are_those_of_the_masks_of_the_stream_or_of_a_table(voc, maps, tmp_path):
    order = [*range(20, 0, -1)]
    own = ["--set", f"stream.order={order}"]
    (maps / "step0").rename(tmp_path / "zero")  # it predicts classes that now come later
    by_data = scored(voc, maps / "step1", "--step", "1", *own)
    label = {0: 0, **{c: k for k, c in enumerate(order, start=1)}}
    arrived = {name: np.vectorize(label.get)(ids) for name, ids in guessed(voc, 20, 1).items()}
    by_stream = scored(voc, write(tmp_path / "stream", arrived), "--step", "1", "--ids", "stream", *own)
    names = by_data.class_names
    table = "\n".join(f'{1000 + label[c]} = "{names[label[c]]}"' for c in range(21))
    (tmp_path / "about.toml").write_text(f"[ids]\n{table}\n")
    moved = {name: ids + 1000 for name, ids in arrived.items()}
    own += ["--about", tmp_path / "about.toml"]
    by_table = scored(voc, write(tmp_path / "table", moved, np.uint16), "--step", "1", *own)
    (first, *others) = (record.steps[1].evaluations[0].confusion for record in (by_data, by_stream, by_table))
    assert [first, first] == others
    assert first != scored(voc, maps / "step1", "--step", "1").steps[1].evaluations[0].confusion
    assert len({record.foreign.digest for record in (by_data, by_stream, by_table)}) == 1


def test_without_background_the_void_id_means_none_of_the_classes(camvid, tmp_path):
    """Masks have 0..10 for the classes and 11 for void; labels are 1..11, and 0 is something else."""
    masks = {path.stem: np.array(Image.open(path)) for path in sorted((camvid / "CamVid" / "testannot").glob("*.png"))}
    write(tmp_path / "maps", {name: np.where(mask < 6, mask, 11) for name, mask in masks.items()})
    data = ["--data", camvid, "--output", tmp_path / "results", "--name", "a"]
    assert main([*map(str, ["score", tmp_path / "maps", "-b", "camvid6-1", "--step", "0", *data])]) == 0
    (path,) = (tmp_path / "results").rglob("result.json")
    matrix = np.array(read_record(path).steps[0].evaluations[0].confusion)
    counts = np.bincount(np.concatenate([mask.ravel() for mask in masks.values()]), minlength=12)
    assert matrix[:, 0].tolist() == [0] * 7 + counts[6:11].tolist()
    assert matrix.diagonal().tolist() == [0, *counts[:6], *[0] * 5]


def test_maps_of_another_size_are_resized_where_that_is_allowed(voc, tmp_path, capsys):
    small = {name: np.where(mask == 255, 0, mask)[::2, ::2] for name, mask in truth(voc).items()}
    write(tmp_path / "small", small)
    line = refused(capsys, words(voc, tmp_path / "small", "--step", "1"), "val_0.png is 16x16, its mask 32x32")
    assert "--resize nearest" in line
    record = scored(voc, tmp_path / "small", "--step", "1", "--resize", "nearest")
    large = {name: ids.repeat(2, 0).repeat(2, 1) for name, ids in small.items()}
    assert np.array_equal(record.steps[1].evaluations[0].confusion, counted(voc, large))
    assert record.foreign.resized == 3


def test_one_step_is_scored_alone_and_the_others_have_no_scores(voc, maps):
    record = scored(voc, maps, "--step", "1")
    assert [len(step.evaluations) for step in record.steps] == [0, 1]
    assert record.steps[1].evaluations[0].metrics["forgetting"] is None
    first = scored(voc, maps, "--step", "0")
    assert (first.status, len(first.steps)) == ("interrupted", 1)


def test_a_joint_run_is_one_step(voc, maps):
    record = scored(voc, maps / "step1", name="joint")
    assert [len(step.new_classes) for step in record.steps] == [20]
    assert record.steps[0].evaluations[0].metrics["miou"]["added"] is not None


# ---- networks

NETWORK = """
import torch
class Network(torch.nn.Module):
    def __init__(self, step, shift=0):
        super().__init__()
        self.step, self.shift = step, shift
    def forward(self, image):
        outputs = (16, 21)[self.step]
        position = torch.arange(outputs).view(1, outputs, 1, 1) / outputs
        return -(image.mean(1, keepdim=True).sigmoid() + self.shift - position).abs()
def nan(step):
    return torch.nn.Sequential(Network(step), torch.nn.Threshold(0, float("nan")))
def half(step):
    return torch.nn.Sequential(Network(step), torch.nn.AvgPool2d(2))
def number(step):
    return 3
def later(step):
    return Network(1)
class Broken(torch.nn.Module):
    def __init__(self, step):
        super().__init__()
    def forward(self, image):
        raise KeyError("weight")
"""


@pytest.fixture
def load(tmp_path):
    (tmp_path / "load.py").write_text(NETWORK)
    return tmp_path / "load.py"


def test_a_network_is_evaluated_on_our_images_in_every_step(voc, load):
    record = scored(voc, f"{load}:Network", name=None)
    assert record.strategy == "Network"
    assert record.foreign.predictions == "network"
    folder = voc / "VOCdevkit" / "VOC2012" / "JPEGImages"
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for step, outputs in enumerate((16, 21)):
        predicted = {}
        for name in truth(voc):
            image = (np.array(Image.open(folder / f"{name}.jpg")) / 255 - mean) / std
            grey = 1 / (1 + np.exp(-image.mean(2)))
            predicted[name] = np.abs(grey[..., None] - np.arange(outputs) / outputs).argmin(2)
        matrix = counted(voc, predicted)
        difference = np.abs(np.array(record.steps[step].evaluations[0].confusion) - matrix).sum()
        assert difference <= 2  # of a tie in float32
    other = scored(voc, f"{load}:Network(shift=0.1)", name=None)
    assert other.steps[1].evaluations[0].confusion != record.steps[1].evaluations[0].confusion


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("nan", "step 0 on val_0: its logits are not numbers (NaN)"),
        ("half", "images are 32x32, its logits 16x16. scale the logits"),
        ("number", "gives a int for step 0"),
        ("later", "at step 0 on val_0 holds 16"),
        ("Broken", "load.py:Broken:23 at step 0 on val_0: KeyError: 'weight'"),
        ("absent", "unknown class in"),
        ("torch", "torch"),
    ],
)
def test_networks_that_cannot_be_scored_are_refused(voc, load, capsys, name, named):
    refused(capsys, words(voc, f"{load}:{name}"), named)
    assert not (voc.parent / "results").exists()


# ---- bad input


def test_five_kinds_of_damage_are_each_named_and_nothing_is_written(voc, maps, capsys):
    (maps / "step0" / "val_0.png").unlink()
    (maps / "step0" / "val_9.png").write_bytes((maps / "step0" / "val_1.png").read_bytes())
    (maps / "step0" / "val_1.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(maps / "step0" / "val_2.png")
    Image.fromarray(np.full((SIZE, SIZE), 77, np.uint8)).save(maps / "step1" / "val_0.png")
    line = refused(capsys, words(voc, maps))
    for part in (
        "1 test image without a label map (step0/val_0.png)",
        "1 file that is no label map of a test image (step0/val_9.png)",
        "1 label map that cannot be used (step0/val_1.png cannot be read: not an image",
        "1 label map of another size than the mask (step0/val_2.png is 7x5, its mask 32x32",
        "1 label map with ids that are not legal (step1/val_0.png holds 77; legal after step 1: 0-20)",
    ):
        assert part in line
    assert not (voc.parent / "results").exists()


def palette_of_colours(path):
    image = Image.open(path)
    image.putpalette([255 - k % 256 for k in range(768)])
    image.save(path)


def suffixes(folder):
    for path in [*folder.glob("step0/*.png")]:
        path.rename(path.with_name(f"{path.stem}_pred.png"))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda maps: Image.new("RGB", (SIZE, SIZE)).save(maps / "step0/val_1.png"), ["val_1.png", "kind RGB"]),
        (lambda maps: palette_of_colours(maps / "step0/val_1.png"), ["val_1.png", "a palette of its own"]),
        (lambda maps: Image.new("L", (SIZE, SIZE)).save(maps / "step0/val_1.png", "JPEG"), ["is a JPEG"]),
        (suffixes, ["3 test images without a label map", "step0/val_0_pred.png"]),
        (lambda maps: (maps / "step0").rename(maps / "step2"), ["step2", "steps 0 to 1"]),
        (lambda maps: [p.unlink() for p in maps.glob("step0/*")] + [(maps / "step0").rmdir()], ["step1 and no step0"]),
        (lambda maps: (maps / "notes.txt").write_text("a"), ["notes.txt beside folders of steps"]),
        (lambda maps: (maps / "step1").rename(maps / "step01"), ["step01"]),
        (lambda maps: write(maps / "step0", {"val_0": np.full((SIZE, SIZE), 18)}), ["holds 18", "step 0: 0-15"]),
        (lambda maps: write(maps / "step0", {"val_0": np.full((SIZE, SIZE), 65535)}, np.uint16), ["holds 65535"]),
        (lambda maps: (maps / "about.toml").write_text("memory = 3"), ["about.toml", "'memory'"]),
        (lambda maps: (maps / "about.toml").write_text('memroy = "none"'), ["'memroy'", "did you mean 'memory'"]),
        (lambda maps: (maps / "about.toml").write_text("[training]\nepoch = 3"), ["training.epoch"]),
        (lambda maps: (maps / "about.toml").write_text('checkpoint = "best"'), ["'checkpoint'", "'best'"]),
        (lambda maps: (maps / "about.toml").write_text('[ids]\n0 = "sky"'), ["'sky'"]),
        (lambda maps: (maps / "about.toml").write_text('[ids]\n0 = "background"'), ["no id for aeroplane"]),
        (lambda maps: (maps / "about.toml").write_text('[ids]\na = "background"'), ["about.toml", "ids"]),
        (lambda maps: (maps / "about.toml").write_text("memory = "), ["cannot read", "about.toml"]),
    ],
)
def test_bad_maps_are_refused_in_one_line(voc, maps, capsys, damage, named):
    damage(maps)
    refused(capsys, words(voc, maps), *named)
    assert not (voc.parent / "results").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--step", "2"], ["--step 2", "steps 0 to 1"]),
        (["--ids", "theirs"], ["'theirs'", "data, stream"]),
        (["--resize", "bilinear"], ["--resize bilinear", "nearest"]),
        (["--name", "a\nb"], ["--name"]),
        (["--about", "absent.toml"], ["absent.toml", "--template"]),
        (["--device", "gpu"], ["no device 'gpu'"]),
    ],
)
def test_bad_options_are_refused_in_one_line(voc, maps, capsys, more, named):
    refused(capsys, words(voc, maps, *more), *named)


def test_folders_and_benchmarks_that_do_not_fit_are_refused(voc, maps, capsys):
    refused(capsys, words(voc, voc.parent / "absent", name=None), "there is no folder")
    refused(capsys, words(voc, maps / "step0"), "--step 0 to 1")
    refused(capsys, words(voc, maps, name=None), "--name", "about.toml")
    refused(capsys, words(voc, maps, benchmark="shapes-3tasks"), "sequence of tasks")
    refused(capsys, ["score", maps], "needs predictions and a benchmark")
    refused(capsys, words(voc, maps, benchmark="voc10-10(size=full)"), "legal after step 0: 0-10")


# ---- what is declared


ABOUT = """
method = "STAR"
network = "deeplabv3(encoder=resnet101)"
memory = "none"
checkpoint = "last"
[training]
epochs = 30
"""


def test_what_is_declared_stands_in_record_table_and_report(voc, maps, capsys):
    (maps / "about.toml").write_text(ABOUT)
    record = scored(voc, maps, name=None)
    assert (record.strategy, record.backbone) == ("STAR", "deeplabv3")
    assert record.settings["backbone_values"] == {"encoder": "resnet101"}
    assert record.settings["training"] == {"epochs": 30}
    assert record.foreign.declared.memory == "none"
    results = str(voc.parent / "results")
    capsys.readouterr()
    assert main(["table", results]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^STAR§ +1 ", shown, re.MULTILINE)
    said = "§ STAR is foreign, self-declared: memory none, checkpoint last; not declared: paper, code, extra data"
    assert said in " ".join(shown.split())
    assert main(["table", results, "--filter", "memory=none", "--columns", "all"]) == 0
    assert main(["table", results, "--format", "csv"]) == 0
    *_, header, line = capsys.readouterr().out.splitlines()
    assert dict(zip(header.split(","), line.split(","), strict=True))["foreign"] == "self-declared"
    assert main(["table", results, "--format", "latex"]) == 0
    assert r"STAR\textsuperscript{\S}" in capsys.readouterr().out
    assert main(["report", results, "-o", str(voc.parent / "report.html")]) == 0
    page = (voc.parent / "report.html").read_text()
    assert 'STAR<span title="foreign, self-declared">§</span>' in page
    assert "foreign.declared.memory" in page
    capsys.readouterr()
    (path,) = (voc.parent / "results").rglob("result.json")
    assert main(["inspect", str(path.parent)]) == 0
    assert "declared.memory=none" in " ".join(capsys.readouterr().out.split())
    refused(capsys, ["evaluate", path.parent], "no network")


def test_published_numbers_are_not_compared_with_what_is_not_declared(voc, maps, capsys):
    (maps / "about.toml").write_text(ABOUT)
    scored(voc, maps, name="mib")
    capsys.readouterr()
    assert main(["table", str(voc.parent / "results"), "--group", "fg-only", "--against", "published"]) == 0
    (note,) = re.findall(r"not compared: MiB, Table 1 .*", " ".join(capsys.readouterr().out.split("\n")))
    assert "lr not declared (there 0.01)" in note
    assert "pretrained weights not declared" in note
    assert "batchnorm" not in note  # a paper that does not mention it is taken to have done what is usual
    assert "30 epochs (there" not in note


def test_seeds_are_one_row_and_another_declaration_is_another(voc, maps, tmp_path, capsys):
    for seed in (0, 1):
        scored(voc, maps, "--seed", seed)
    (tmp_path / "other.toml").write_text('checkpoint = "test"\nknown_classes = true\n')
    scored(voc, maps, "--about", tmp_path / "other.toml")
    capsys.readouterr()
    assert main(["table", str(voc.parent / "results")]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^Theirs§ +2 ", shown, re.MULTILINE)
    assert re.search(r"^Theirs†§ +1‡ ", shown, re.MULTILINE)
    assert "Theirs chose its weights by the test images and is not ranked" in shown
    assert "knows from the first step how many classes will come" in shown


def test_the_record_says_who_made_it_and_notices_a_change(voc, maps):
    scored(voc, maps)
    (path,) = (voc.parent / "results").rglob("result.json")
    content = json.loads(path.read_text())
    content["foreign"]["declared"]["memory"] = "none"
    path.write_text(json.dumps(content))
    assert read_record(path).edited
    content["foreign"]["declared"]["memroy"] = "none"
    path.write_text(json.dumps(content))
    with pytest.raises(Exception, match="memroy"):
        read_record(path)
