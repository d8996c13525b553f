"""Data sets of a user's own: named by file and class, refused in one line, and in the hash of a run."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_trees import noise_image, palette_mask
from densecl.data import canonical, data_set, entries, names, open_dataset
from densecl.data.class_index import class_index
from densecl.data.verify import verify
from densecl.errors import DataError, DenseCLError, RecipeError, SettingError, UnknownNameError
from densecl.runner.plan import make_plan

FIELDS = '''
from densecl.data.dataset import DenseDataset


class Fields(DenseDataset):
    """Aerial images of fields."""

    class_names = ("wheat", "maize", "forest")
    splits = ("train", "test")
    season: str = "spring"

    def files(self, split):
        for image in sorted((self.root / self.season / split).glob("*.jpg")):
            yield image.stem, image, image.with_suffix(".png")
'''


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DENSECL_DATA", raising=False)


def write_class(folder: Path, change: tuple[str, str] = ("", "")) -> str:
    """Write fields.py with a part of its text replaced; the name of its class."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fields.py").write_text(FIELDS.replace(*change))
    return f"{folder}/fields.py:Fields"


def pictures(folder: Path, season: str = "spring", train: int = 3, test: int = 2) -> Path:
    for split, count in (("train", train), ("test", test)):
        for k in range(count):
            noise_image(folder / season / split / f"{split}{k}.jpg", (8, 10), seed=k)
            palette_mask(folder / season / split / f"{split}{k}.png", np.full((8, 10), k % 4, np.uint8))
    return folder


@pytest.fixture
def fields(tmp_path) -> Path:
    return pictures(tmp_path / "fields")


def test_each_packaged_file_has_the_class_of_its_name_and_says_what_it_is():
    assert {"voc", "shapes", "folder"} < set(names())
    for entry in entries():
        cls = data_set(entry.name)
        assert (cls.name, cls.aliases) == (entry.name, entry.aliases)
        assert len(entry.summary) > 20
        assert {"train", "test"} <= set(cls.splits)
        assert cls.folders[0] in cls.hint() or "make" in cls.hint()
        assert cls.paper or entry.name in ("class_folders", "folder", "masks")
    assert [canonical(name) for name in ("voc2012", "ade", "coco2017", "a/b.py:C")] == [
        "voc",
        "ade20k",
        "coco",
        "a/b.py:C",
    ]


def test_names_are_known_without_numpy_and_torch():
    code = "import sys; from densecl.data import canonical, entries; entries(); canonical('voc2012'); "
    code += "assert not {'numpy', 'torch', 'pydantic', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_class_in_a_file_is_opened_by_its_name_with_its_settings(tmp_path, fields):
    name = write_class(tmp_path)
    pictures(fields, "autumn", train=5)
    dataset = open_dataset(name, "train", fields)
    assert (dataset.name, dataset.ids, dataset.root) == ("Fields", ("train0", "train1", "train2"), fields)
    assert np.unique(dataset.read(2).mask).tolist() == [2]
    assert len(open_dataset(f"{name}(season=autumn)", "train", fields)) == 5
    assert [finding.level for finding in verify(name, fields)] == ["ok", "ok", "ok", "note", "ok", "ok", "note"]
    with pytest.raises(UnknownNameError, match=r"'seson'.*did you mean 'season'"):
        open_dataset(f"{name}(seson=autumn)", "train", fields)
    with pytest.raises(UnknownNameError, match=r"unknown split 'val'.*known: test, train"):
        open_dataset(name, "val", fields)


def test_settings_of_packaged_data_sets_are_named_likewise(tmp_path):
    for city in ("ulm", "jena"):
        for kind, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
            noise_image(tmp_path / kind / "train" / city / f"{city}_0_{ending}.png", (2, 2))
    assert open_dataset("cityscapes(cities=[ulm])", "train", tmp_path).ids == ("ulm_0",)


def test_without_layout_the_folder_is_the_named_one_or_that_of_the_class(tmp_path, fields, monkeypatch):
    name = write_class(tmp_path)
    with pytest.raises(DataError, match=r"no Fields data in .*nowhere: there is no such folder"):
        open_dataset(name, "train", tmp_path / "nowhere")
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("DENSECL_DATA", str(tmp_path / "data"))
    with pytest.raises(DataError, match=r"no Fields data .*data/Fields.*--data or DENSECL_DATA"):
        open_dataset(name, "train")
    fields.rename(tmp_path / "data" / "Fields")
    assert len(open_dataset(name, "test")) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("image.stem, image", "'same', image"), "train names same more than once"),
        (('image.with_suffix(".png")', "None if image.stem == 'train1' else image"), "1 of 3 images of train have no"),
        (
            ('with_suffix(".png")', 'with_suffix(".gif")'),
            r"3 of 3 masks of train are missing in .*: train0\.gif, train1",
        ),
        (('"*.jpg"', '"*.tif"'), "no train images in .*fields"),
    ],
)
def test_lists_that_cannot_be_used_are_refused(tmp_path, fields, change, message):
    with pytest.raises(DataError, match=message):
        open_dataset(write_class(tmp_path, change), "train", fields)


def test_a_class_that_is_no_data_set_and_a_missing_one_are_refused(tmp_path):
    name = write_class(tmp_path, ("(DenseDataset)", ""))
    with pytest.raises(DataError, match=r"fields\.py:Fields' is no data set"):
        data_set(name)
    with pytest.raises(UnknownNameError, match="did you mean 'Fields'"):
        data_set(name[:-1])
    with pytest.raises(DenseCLError, match=r"there is no file .*absent\.py"):
        data_set("absent.py:Fields")


def test_a_name_that_the_user_did_not_give_is_not_executed(tmp_path, fields):
    name = write_class(tmp_path, ("\nclass", "\nfrom pathlib import Path\nPath(__file__ + '.ran').touch()\nclass"))
    with pytest.raises(DataError, match="was not named by you, so its code is not executed"):
        open_dataset(name, "train", fields, trusted=False)
    assert not (tmp_path / "fields.py.ran").exists()
    assert len(open_dataset(name, "train", fields)) == 3
    assert (tmp_path / "fields.py.ran").exists()


def test_files_of_other_kinds_are_read_by_overriding(tmp_path, fields):
    change = (
        "    def files",
        "    def read_ids(self, i):\n        return super().read_ids(i) * 0 + 3\n\n    def files",
    )
    dataset = open_dataset(write_class(tmp_path, change), "train", fields)
    assert np.unique(dataset.read_mask(0)).tolist() == [3]
    assert np.flatnonzero(dataset.read_labels(0)).tolist() == [3]


def test_the_class_index_and_the_content_depend_on_the_code(tmp_path, fields):
    plain = open_dataset(write_class(tmp_path / "a"), "train", fields)
    same = open_dataset(write_class(tmp_path / "b"), "train", fields)
    void = open_dataset(
        write_class(tmp_path / "c", ("    season", "    label_of = {0: 255, 1: 1, 2: 2, 3: 3}\n    season")),
        "train",
        fields,
    )
    assert plain.content == same.content != void.content
    assert class_index(plain)[:, 0].tolist() == [True, False, False]
    assert class_index(void)[:, 255].tolist() == [True, False, False]


def test_kept_copies_are_still_of_the_class(tmp_path, fields):
    change = ("    def files", "    def domains(self):\n        return {'all': [0, 1]}\n\n    def files")
    dataset = open_dataset(write_class(tmp_path, change), "train", fields).cached()
    assert dataset.read(1) is dataset.read(1)
    assert dataset.domains() == {"all": [0, 1]}
    assert pickle.loads(pickle.dumps(dataset)).ids == dataset.ids
    plain = dataset.without_masks()
    assert (plain.class_names, plain.has_masks, plain.domains()) == ((), False, {"all": [0, 1]})
    assert not plain.read(1).mask.any()


# in recipes and runs --------------------------------------------------------------------------------------------------

RECIPE = """family = "fields"
summary = "fields that arrive one by one"
classes = 3
splits = ["2-1"]
backbone = "unet(width=8)"
[data]
name = "../code/fields.py:Fields{settings}"
"""


def catalogue(folder: Path, settings: str = "") -> Path:
    (folder / "benchmarks").mkdir(parents=True)
    (folder / "benchmarks" / "fields.toml").write_text(RECIPE.format(settings=settings))
    return folder


def test_a_recipe_names_a_file_relative_to_its_own_folder(tmp_path, fields):
    write_class(tmp_path / "catalogue" / "code")
    folder = catalogue(tmp_path / "catalogue", "(season=spring)")
    plan = make_plan("fields2-1", "finetune", catalogue=folder, data=fields, device="cpu")
    assert plan.settings.data.name == f"{tmp_path}/catalogue/code/fields.py:Fields(season=spring)"
    assert len(plan.train) == 3
    (folder / "benchmarks" / "fields.toml").write_text(RECIPE.format(settings="(season"))
    with pytest.raises(RecipeError, match=r"fields\.toml: cannot read '"):
        make_plan("fields2-1", "finetune", catalogue=folder)


def test_a_run_depends_on_the_code_of_its_data_set_not_on_its_place(tmp_path, fields):
    changes = {"one": ("", ""), "two": ("", ""), "three": ("Aerial", "Aerial, edited"), "four": ("", "")}
    hashes = []
    for name, change in changes.items():
        write_class(tmp_path / name / "code", change)
        folder = catalogue(tmp_path / name, "(season=spring)" if name == "four" else "")
        hashes.append(make_plan("fields2-1", "finetune", catalogue=folder, data=fields, device="cpu").hash)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_a_plan_that_the_user_did_not_type_opens_no_code(tmp_path, fields):
    from dataclasses import replace

    write_class(tmp_path / "catalogue" / "code")
    plan = make_plan("fields2-1", "finetune", catalogue=catalogue(tmp_path / "catalogue"), data=fields, device="cpu")
    with pytest.raises(DataError, match="was not named by you"):
        _ = replace(plan, trusted=False).readers


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("    def files(", "    def others("), "Fields has no method files"),
        (("yield image.stem, image, image.with_suffix", "yield image.stem, image  # "), r"give .id, image, mask"),
        (("yield image.stem, image, image.with_suffix", "yield image.stem  # "), r"Fields\.files gives 'train0'"),
    ],
)  # fmt: skip
def test_a_class_whose_files_are_not_as_they_must_be_is_refused_in_words(tmp_path, fields, change, words):
    with pytest.raises(SettingError, match=words):
        open_dataset(write_class(tmp_path, change), "train", fields)
