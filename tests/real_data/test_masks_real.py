"""Data without code on real sets that are none of ours; skipped where they are not."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densecl.cli import main
from densecl.data import open_dataset
from densecl.data.class_index import class_index
from densecl.data.legend import colour_text, legend
from densecl.palette import palette
from densecl.runner.plan import make_plan

SHARED = Path(os.environ.get("DENSECL_SHARED") or Path(__file__).parents[3] / "shared") / "data"
pytestmark = pytest.mark.skipif(not (SHARED / "wbc-mini").is_dir(), reason="no real data here")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))


def test_cells_are_described_and_every_mask_is_legal(tmp_path):
    recipe = tmp_path / "benchmarks" / "cells.toml"
    assert main(["data", "describe", str(SHARED / "wbc-mini" / "dataset1"), "-o", str(recipe)]) == 0
    recipe.write_text(recipe.read_text().replace('family = "dataset"', 'family = "cells"'))
    plan = make_plan("cells1-1", "mib", catalogue=tmp_path, device="cpu")
    assert [len(reader) for reader in plan.readers[0]] == [226, 74]
    assert class_index(plan.train)[:, :3].any(0).all()


def test_voc_in_its_colours_has_vocs_labels(tmp_path):
    voc = open_dataset("voc", "val", SHARED / "voc-mini")
    colours = np.frombuffer(palette(), np.uint8).reshape(-1, 3).astype(int) @ (1 << 16, 1 << 8, 1)
    names = [colour_text(int(colour)) for colour in colours]
    read = legend(voc.class_names, colours=names[1:21], ignore=[names[255]]).read
    for i in range(0, len(voc), 40):
        path = tmp_path / f"{i}.png"
        Image.open(voc.mask_files[i]).convert("RGB").save(path)
        assert (read(str(path)) == voc.read_mask(i)).all()
