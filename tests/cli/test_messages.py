"""Damaged files of every kind end in one line in our own words, which names the file and no exception of Python."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from broken_files import damaged, messages, other_value, spoken_badly
from data_trees import voc_tree
from densecl.data import open_dataset
from densecl.data.class_index import scan
from densecl.data.decode import image_size, read_indices, read_rgb
from densecl.data.sets.coco import COCO
from densecl.models.weights import load_weights
from densecl.records.published import read_published
from densecl.records.record import read_record
from densecl.runner.checkpoint import pack, unpack
from densecl.settings.catalogue import folders
from densecl.settings.grammar import parse
from densecl.settings.recipe import BenchmarkRecipe, StrategyRecipe, read_recipe
from densecl.sweep.planfile import expand, read_plan
from densecl.tensors import read_tensors, save_tensors
from report_runs import committed

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("damage", [damaged, other_value])
def test_records(tmp_path, damage):
    path = committed(tmp_path, 0) / "result.json"
    assert not spoken_badly(messages(path, lambda: read_record(path), damage), "result.json")


@pytest.mark.parametrize(
    ("name", "model"), [("benchmarks/shapes-tasks", BenchmarkRecipe), ("strategies/mib", StrategyRecipe)]
)
def test_recipes(tmp_path, name, model):
    path = tmp_path / "own.toml"
    path.write_bytes((folders()[0] / f"{name}.toml").read_bytes())
    assert not spoken_badly(messages(path, lambda: read_recipe(path, model)), "own.toml")


def test_plans_of_sweeps(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_bytes((ROOT / "results/plans/example.toml").read_bytes())
    assert not spoken_badly(messages(path, lambda: expand(read_plan(path))), "plan.toml")


def test_published_numbers(tmp_path):
    path = tmp_path / "own.toml"
    path.write_bytes(min((ROOT / "results/published").glob("*.toml")).read_bytes())
    assert not spoken_badly(messages(path, lambda: read_published(path)), "own.toml")


def test_names(tmp_path):
    path = tmp_path / "name"
    path.write_text("mib(distillation=5, 'x y'=[1, (2, 'a')])+replay(memory=100)")
    assert not spoken_badly(messages(path, lambda: parse(path.read_text(errors="replace")), seconds=1))


def test_lists_of_images(tmp_path):
    voc_tree(tmp_path, train=4, val=4)
    path = next(tmp_path.rglob("train.txt"))
    assert not spoken_badly(messages(path, lambda: open_dataset("voc", "train", tmp_path)))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_images(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    assert not spoken_badly(messages(path, lambda: (image_size(path), read_rgb(path)), seconds=1), path.name)


def test_masks(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 3, (24, 32), np.uint8)).save(path)
    assert not spoken_badly(messages(path, lambda: read_indices(path)), path.name)


@pytest.mark.parametrize("damage", [damaged, other_value])
def test_coco_files(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.parent.mkdir()
    (tmp_path / "val2017").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "val2017" / "a.jpg")
    polygon = {"id": 5, "image_id": 1, "category_id": 3, "iscrowd": 0, "segmentation": [[1, 1, 6, 1, 6, 6]]}
    crowd = {**polygon, "id": 6, "iscrowd": 1, "segmentation": {"size": [8, 8], "counts": [10, 4, 50]}}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 8, "width": 8}],
        "annotations": [polygon, crowd],
        "categories": [{"id": 3, "name": "car"}],
    }
    path.write_text(json.dumps(content))
    assert not spoken_badly(messages(path, lambda: scan(COCO(tmp_path, "val")), damage, seconds=3))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights(tmp_path, suffix):
    path, net = tmp_path / f"weights.{suffix}", torch.nn.Linear(8, 4)
    save_file(net.state_dict(), path) if suffix == "safetensors" else torch.save(net.state_dict(), path)
    assert not spoken_badly(messages(path, lambda: load_weights(net, path)), path.name)


def test_kept_tensors_and_checkpoints(tmp_path):
    path = tmp_path / "step0.safetensors"
    save_tensors({"a": torch.arange(6.0)}, path, {"step": "0"})
    assert not spoken_badly(messages(path, lambda: read_tensors(path)), path.name)
    path = tmp_path / "step0-epoch000001.ckpt"
    path.write_bytes(pack({"run": "mine", "step": 0, "epoch": 1, "network": {"w": torch.zeros(5)}}))
    assert not spoken_badly(messages(path, lambda: unpack(path, "mine")), path.name)
