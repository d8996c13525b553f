"""A file of every kind with the reader that must notice damage to it, or work; found by the names of their makers."""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from broken_files import Damage, damaged, other_header, other_key, other_state, other_value
from data_trees import class_tree, flowers_tree, voc_tree
from densecl.cli import main
from densecl.data import open_dataset
from densecl.data.class_index import scan
from densecl.data.decode import image_size, read_indices, read_rgb
from densecl.data.legend import legend
from densecl.data.sets.coco import COCO
from densecl.data.sets.voc import VOC
from densecl.errors import DenseCLError
from densecl.finished.about import TEMPLATE, read_about
from densecl.finished.first import export_first, import_first
from densecl.models.weights import load_weights
from densecl.records.probed import read_probed
from densecl.records.published import read_published
from densecl.records.record import read_record
from densecl.runner.checkpoint import pack, unpack
from densecl.settings.catalogue import folders
from densecl.settings.grammar import parse
from densecl.settings.recipe import BenchmarkRecipe, StrategyRecipe, read_recipe
from densecl.sweep.planfile import expand, read_plan
from densecl.tables.anatomy import listings
from densecl.tables.forms.listing import render
from densecl.tensors import read_tensors, save_tensors
from report_runs import committed
from tiny_runs import SIZE, run_words, tiny_voc

ROOT = Path(__file__).parents[2]


class Target(NamedTuple):
    """A file that is damaged, and the reader that must notice it or work."""

    path: Path
    read: Callable[[], object]
    damages: tuple[Damage, ...] = (damaged,)
    named: bool = True  # each message has the file's name
    refuses: bool = True  # False: damage may be passed over, with a word


TARGETS: dict[str, Callable[[Path], Target]] = {}
Made = Callable[[Path], Target]


def target(make: Made) -> Made:
    """Enter a maker of a target under its name."""
    TARGETS[make.__name__] = make
    return make


def command(*words: object) -> None:
    """Run a command whose refusal, of exit code 2, is raised with what it printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = main([str(word) for word in words])
    if code == 2:
        raise DenseCLError(said.getvalue())


# ---- settings


@target
def benchmark_recipe(root: Path) -> Target:
    path = root / "own.toml"
    path.write_bytes((folders()[0] / "benchmarks/shapes-tasks.toml").read_bytes())
    return Target(path, lambda: read_recipe(path, BenchmarkRecipe), (damaged, other_key))


def _recipe_of_masks(root: Path) -> Path:
    path = root / "benchmarks" / "own.toml"
    path.parent.mkdir()
    path.write_text(
        'family = "own"\nsummary = "s"\nsplits = ["2-1"]\nbackbone = "unet(width=8)"\n[data]\nname = "masks"\n'
        'classes = ["a", "b", "c"]\ncolours = ["#804080", "#0000ff", "#00ff01"]\nevery = 5\nroot = "x"\n'
        "[stream]\norder = [3, 2, 1]\n[training]\ncrop = [32, 48]\n[training.later]\nlr = 0.1\niterations = [5, 6]\n"
        '[split.named.stream.groups]\nthings = ["a", "b"]\nstuff = ["c"]\n'
    )
    for k in range(10):
        for part in ("images", "masks"):
            picture = root / "benchmarks" / "x" / part / f"{k}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (48, 40), ("#804080", "#0000ff", "#00ff01")[k % 3]).save(picture)
    return path


def _catalogue(*words: str, refuses: bool = True) -> Made:
    def make(root: Path) -> Target:
        path = _recipe_of_masks(root)
        return Target(path, lambda: command(*words, "--catalogue", root), (damaged, other_key), False, refuses)

    return make


TARGETS |= {
    "recipe_shown": _catalogue("show", "own2-1"),
    "recipe_listed": _catalogue("list", refuses=False),
    "recipe_planned": _catalogue("run", "-b", "own2-1", "-s", "mib", "--dry-run", "--device", "cpu"),
}


@target
def strategy_recipe(root: Path) -> Target:
    path = root / "own.toml"
    path.write_bytes((folders()[0] / "strategies/mib.toml").read_bytes())
    return Target(path, lambda: read_recipe(path, StrategyRecipe), (damaged, other_key))


@target
def sweep_plan(root: Path) -> Target:
    path = root / "plan.toml"
    path.write_text((ROOT / "results/plans/example.toml").read_text() + "[[runs]]\nseeds = [1]\n[slurm]\ncpus = 2\n")
    return Target(path, lambda: expand(read_plan(path)), (damaged, other_key))


@target
def published_numbers(root: Path) -> Target:
    path = root / "own.toml"
    path.write_bytes(min((ROOT / "results/published").glob("*.toml")).read_bytes())
    return Target(path, lambda: read_published(path), (damaged, other_key))


@target
def declaration(root: Path) -> Target:
    path = root / "about.toml"
    path.write_text(re.sub(r"^# (?=\w+ = |\[)", "", TEMPLATE, flags=re.MULTILINE))  # with every key
    return Target(path, lambda: read_about(path), (damaged, other_key))


@target
def names(root: Path) -> Target:
    path = root / "name"
    path.write_text("mib(distillation=5, x='a b', y=(1, (2, 'a')))+replay(memory=100)")
    return Target(path, lambda: parse(path.read_text(errors="replace")), named=False)


# ---- records


@target
def record(root: Path) -> Target:
    path = committed(root, 0) / "result.json"
    return Target(path, lambda: read_record(path), (damaged, other_value))


@target
def table(root: Path) -> Target:
    path = committed(root, 0) / "result.json"
    committed(root, 1)
    return Target(path, lambda: command("table", root), (damaged, other_value), refuses=False)


# ---- data


@target
def list_of_images(root: Path) -> Target:
    voc_tree(root, train=4, val=4)
    return Target(next(root.rglob("train.txt")), lambda: open_dataset("voc", "train", root), named=False)


@target
def list_of_classes(root: Path) -> Target:
    class_tree(root, "", ("a", "b"), 3)
    path = root / "train.txt"
    path.write_text("a/0.png 0\nb/1.png 1\nb/2.png\n")
    return Target(path, lambda: open_dataset("class_folders", "train", root), named=False)


@target
def matrix_of_flowers(root: Path) -> Target:
    flowers_tree(root)
    return Target(root / "setid.mat", lambda: open_dataset("class_folders(like=flowers)", "train", root), named=False)


def _image(suffix: str) -> Made:
    def make(root: Path) -> Target:
        path = root / f"image.{suffix}"
        pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        return Target(path, lambda: (image_size(path), read_rgb(path)))

    return make


TARGETS |= {f"image_{suffix}": _image(suffix) for suffix in ("jpg", "png", "webp", "bmp", "tif", "gif")}


@target
def mask(root: Path) -> Target:
    path = root / "mask.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 3, (24, 32), np.uint8)).save(path)
    return Target(path, lambda: read_indices(path))


@target
def mask_of_colours(root: Path) -> Target:
    path, colours = root / "mask.png", ("#000000", "#804080", "#0000ff")
    rgb = np.array([[0, 0, 0], [128, 64, 128], [0, 0, 255]], np.uint8)
    Image.fromarray(rgb[np.random.default_rng(0).integers(0, 3, (24, 32))]).save(path)
    return Target(path, lambda: legend(["a", "b", "c"], colours=colours).read(str(path)))


@target
def legend_of_a_folder(root: Path) -> Target:
    for part in ("images", "masks"):
        (root / part).mkdir()
    for k in range(6):
        Image.fromarray(np.full((9, 9, 3), 40 * k, np.uint8)).save(root / "images" / f"{k}.jpg")
        Image.fromarray(np.full((9, 9), k % 3, np.uint8)).save(root / "masks" / f"{k}.png")
    path = root / "classes.csv"
    path.write_text("1,road\n2,car\n3,tree\n")
    return Target(path, lambda: command("data", "describe", root), named=False, refuses=False)


@target
def coco_file(root: Path) -> Target:
    path = root / "annotations" / "instances_val2017.json"
    path.parent.mkdir()
    (root / "val2017").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / "val2017" / "a.jpg")
    polygon = {"id": 5, "image_id": 1, "category_id": 3, "iscrowd": 0, "segmentation": [[1, 1, 6, 1, 6, 6]]}
    crowd = {**polygon, "id": 6, "iscrowd": 1, "segmentation": {"size": [8, 8], "counts": [10, 4, 50]}}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 8, "width": 8}],
        "annotations": [polygon, crowd],
        "categories": [{"id": 3, "name": "car"}],
    }
    path.write_text(json.dumps(content))
    return Target(path, lambda: scan(COCO(root, "val")), (damaged, other_value), named=False)


# ---- tensors


def _weights(suffix: str) -> Made:
    def make(root: Path) -> Target:
        path, net = root / f"weights.{suffix}", torch.nn.Linear(8, 4)
        save_file(net.state_dict(), path) if suffix == "safetensors" else torch.save(net.state_dict(), path)
        damages = (damaged, other_header) if suffix == "safetensors" else (damaged,)
        return Target(path, lambda: load_weights(net, path), damages)

    return make


TARGETS |= {f"weights_{suffix}": _weights(suffix) for suffix in ("pth", "safetensors")}


@target
def kept_tensors(root: Path) -> Target:
    path = root / "step0.safetensors"
    save_tensors({"a": torch.arange(6.0)}, path, {"step": "0"})
    return Target(path, lambda: read_tensors(path), (damaged, other_header))


@target
def checkpoint(root: Path) -> Target:
    path = root / "step0-epoch000001.ckpt"
    path.write_bytes(pack({"run": "mine", "step": 0, "epoch": 1, "network": {"w": torch.zeros(5)}}))
    return Target(path, lambda: unpack(path, "mine"))


# ---- a finished run


@cache
def _finished(place: Path) -> Path:
    """A folder with data and a run on it; made once."""
    tiny_voc(place / "data")
    torch.set_num_threads(1)
    command(*run_words(place / "data", place / "results", "--quiet", strategy="mib+replay(memory=4)"))
    return place


def _run(root: Path) -> tuple[Path, Path]:
    """A copy of the finished run: its folder, and that of the data."""
    place = _finished(root.parent / "finished")
    shutil.copytree(place / "results", root / "results")
    return next((root / "results").rglob("result.json")).parent, place / "data"


@target
def first_step_imported(root: Path) -> Target:
    path = export_first(_run(root)[0], root / "first.safetensors").path
    return Target(path, lambda: import_first(str(path), root / "other"), (damaged, other_header))


def _given(what: str) -> Made:
    def make(root: Path) -> Target:
        run, data = _run(root)
        path = export_first(run, root / "first.safetensors").path
        mapped = root / "map.toml"
        names = json.dumps(["background", *VOC.class_names[:15]])
        mapped.write_text(f'classes = {names}\nfresh = ["none."]\n[names]\n"net." = "backbone."\n')
        more = ["--first", str(path), "--quiet", *(["--first-map", str(mapped)] if what == "map" else [])]
        words = run_words(data, root / "results", *more)
        damages = (damaged, other_key) if what == "map" else (damaged, other_header)
        # where a map is wrong for the weights, these are named
        return Target(mapped if what == "map" else path, lambda: command(*words), damages, named=what != "map")

    return make


TARGETS |= {f"first_step_{what}": _given(what) for what in ("map", "given")}


def _of_run(file: str, *words: str, damages: tuple[Damage, ...], named: bool = True) -> Made:
    """A command on a run of which one file is damaged."""

    def make(root: Path) -> Target:
        run, _ = _run(root)
        shutil.copy(next((run / "pictures").glob("*.png")), root / "picture.png")
        named_words = {"RUN": run, "IMAGE": root / "picture.png", "OUT": root / "out", "RESULTS": root / "results"}
        words_of_run = [named_words.get(word, word) for word in words]
        path = root / file if file == "picture.png" else run / file
        return Target(path, lambda: command(*words_of_run), damages, named)

    return make


JSON, TENSORS, STATE = (damaged, other_value), (damaged, other_header), (damaged, other_state)
TARGETS |= {
    "inspected_record": _of_run("result.json", "inspect", "RUN", damages=JSON, named=False),
    "evaluated_record": _of_run("result.json", "evaluate", "RUN", damages=JSON, named=False),
    "record_of_a_prediction": _of_run("result.json", "predict", "RUN", "IMAGE", "-o", "OUT", damages=JSON, named=False),
    "evaluated_weights": _of_run("weights/step1.safetensors", "evaluate", "RUN", damages=TENSORS),
    "evaluated_state": _of_run("checkpoints/step1-done.ckpt", "evaluate", "RUN", damages=STATE),
    "picture_to_predict": _of_run("picture.png", "predict", "RUN", "IMAGE", "-o", "OUT", damages=(damaged,)),
    "record_in_report": _of_run("result.json", "report", "RESULTS", "-o", "OUT", damages=JSON, named=False),
}


@target
def probe(root: Path) -> Target:
    run, _ = _run(root)
    command("probe", run)

    def read() -> object:
        known = read_record(run / "result.json")
        probed = read_probed(run, known)
        return probed and render(listings(known, probed), width=100)

    return Target(run / "probe.json", read, JSON)


@target
def record_resumed(root: Path) -> Target:
    run, data = _run(root)
    words = run_words(data, root / "results", "--quiet", strategy="mib+replay(memory=4)")
    return Target(run / "result.json", lambda: command(*words), JSON, named=False, refuses=False)


@target
def label_map(root: Path) -> Target:
    data = _finished(root.parent / "finished") / "data"
    (root / "maps").mkdir()
    for k in range(3):
        Image.fromarray(np.zeros((SIZE, SIZE), np.uint8)).save(root / "maps" / f"val_{k}.png")
    more = ["--name", "a", "--step", "1", "--data", data, "--output", root / "results"]
    words = ["score", root / "maps", "-b", "voc15-5(size=full)", *more]
    return Target(root / "maps" / "val_0.png", lambda: command(*words))
