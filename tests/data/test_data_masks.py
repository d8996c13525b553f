"""Data without code: masks of ids and colours by a recipe, and the recipe that is proposed for a folder."""

import struct
import tomllib
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_trees import noise_image, palette_mask
from densecl.cli import main
from densecl.data import open_dataset
from densecl.data.class_index import class_index
from densecl.data.legend import legend
from densecl.errors import DataError, DenseCLError, SettingError
from densecl.runner.plan import make_plan
from densecl.settings.grammar import Call, format_call
from tiny_runs import refused

NAMES = ("road", "car", "tree")
COLOURS = ("#804080", "#0000ff", "#00ff01")
RGB = np.array([[0, 0, 0], [128, 64, 128], [0, 0, 255], [0, 255, 1]], np.uint8)
LABELS = [np.random.default_rng(k).integers(0, 4, (9, 14)).repeat(2, 0).repeat(3, 1) for k in range(10)]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DENSECL_DATA", raising=False)


def save(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def folder(root: Path, colour: bool = True, void: int | None = None) -> Path:
    """Ten images in `photos`, masks in `labels`, and two lists."""
    for k, labels in enumerate(LABELS):
        noise_image(root / "photos" / f"img{k}.jpg", labels.shape, seed=k)
        mask = RGB[labels] if colour else labels.astype(np.uint8)
        if void is not None:
            mask[0] = void
        save(root / "labels" / f"img{k}_L.png", mask)
    (root / "train.txt").write_text("".join(f"img{k}\n" for k in range(8)))
    (root / "test.txt").write_text("/photos/img8.jpg\nphotos/img9.jpg labels/img9_L.png\n")
    return root


def name(**settings) -> str:
    settings = {"images": "photos", "masks": "labels", "mask_suffix": "_L.png", "train": "train.txt"} | settings
    return format_call(Call("masks", {"classes": NAMES, "test": "test.txt", **settings}))


def test_colours_become_labels_exactly_and_once(tmp_path, monkeypatch):
    root = folder(tmp_path / "own")
    dataset = open_dataset(name(colours=COLOURS), "train", root)
    assert dataset.class_names == NAMES
    assert len(open_dataset(name(colours=COLOURS), "test", root)) == 2
    assert class_index(dataset)[:, :4].all()
    for i in range(8):
        assert (dataset.read(i).mask.numpy() == LABELS[i]).all()
    kept = list((tmp_path / "cache" / "masks").rglob("*.png"))
    assert len(kept) == 8
    monkeypatch.setattr("densecl.data.legend.read_values", None)  # not read again
    again = open_dataset(name(colours=COLOURS), "train", root)
    assert (again.read(3).mask.numpy() == LABELS[3]).all()
    other = open_dataset(name(colours=COLOURS[::-1]), "train", root)  # another meaning has other labels
    monkeypatch.undo()
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    assert (other.read(3).mask.numpy() == np.array([0, 3, 2, 1])[LABELS[3]]).all()
    assert other.content != dataset.content
    assert class_index(other).tolist() == class_index(dataset).tolist()


def test_a_damaged_label_in_the_cache_and_a_changed_mask_are_converted_again(tmp_path):
    root = folder(tmp_path / "own")
    dataset = open_dataset(name(colours=COLOURS), "train", root)
    dataset.read_mask(0)
    (kept,) = (tmp_path / "cache" / "masks").rglob("*.png")
    kept.write_bytes(kept.read_bytes()[:60])
    assert (dataset.read_mask(0) == LABELS[0]).all()
    save(root / "labels" / "img0_L.png", RGB[LABELS[5]])
    assert (dataset.read_mask(0) == LABELS[5]).all()


def write_16(path, labels):
    Image.fromarray((1000 * labels).astype(np.uint16)).save(path)


def write_grey_rgb(path, labels):
    Image.fromarray(np.stack([(1000 * labels // 1000).astype(np.uint8)] * 3, -1)).save(path)


@pytest.mark.parametrize(
    ("write", "ids"),
    [
        (write_16, (1000, 2000, 3000)),
        (write_grey_rgb, (1, 2, 3)),
        (lambda path, labels: Image.fromarray(labels.astype(np.int32)).save(path.with_suffix(".tif")), (1, 2, 3)),
        (palette_mask, (1, 2, 3)),
        (lambda path, labels: palette_mask(path, labels.astype(np.uint8), bits=4), (1, 2, 3)),
    ],
    ids=["16 bits", "grey in RGB", "32 bits", "palette", "palette of 4 bits"],
)
def test_ids_of_any_width_are_read_exactly(tmp_path, write, ids):
    noise_image(tmp_path / "photos" / "a.png", LABELS[0].shape)
    (tmp_path / "labels").mkdir()
    write(tmp_path / "labels" / "a.png", LABELS[0].astype(np.uint8) if write is palette_mask else LABELS[0])
    (tmp_path / "train.txt").write_text("a")
    dataset = open_dataset(name(ids=ids, mask_suffix=""), "train", tmp_path)
    assert (dataset.read(0).mask.numpy() == LABELS[0]).all()
    assert np.flatnonzero(dataset.read_labels(0)).tolist() == [0, 1, 2, 3]


def test_void_and_background_are_what_the_recipe_says(tmp_path):
    plain = folder(tmp_path / "plain", colour=False, void=255)
    mask = open_dataset(name(), "train", plain).read_mask(0)
    assert (mask[0] == 255).all()
    assert (mask[1:] == LABELS[0][1:]).all()
    swapped = open_dataset(name(classes=("zero", "two"), ids=(0, 2), background=(1,), ignore=(3, 255)), "train", plain)
    assert swapped.has_background
    assert (swapped.read_mask(0)[1:] == np.array([1, 0, 2, 255])[LABELS[0][1:]]).all()
    assert not open_dataset(name(classes=("zero", *NAMES), ids=(0, 1, 2, 3)), "train", plain).has_background


def test_splits_are_lists_folders_or_each_nth_image(tmp_path):
    root = folder(tmp_path / "own", colour=False)
    split = open_dataset(name(every=5), "test", root)
    assert split.ids == ("img4", "img9")
    assert len(open_dataset(name(every=5), "train", root)) == 8
    for part, numbers in (("train", range(6)), ("val", range(6, 8))):
        for k in numbers:
            for kind, ending in (("photos", ".jpg"), ("labels", "_L.png")):
                target = root / kind / part / "town" / f"img{k}{ending}"
                target.parent.mkdir(parents=True, exist_ok=True)
                (root / kind / f"img{k}{ending}").rename(target)
    parts = {"images": "photos/{split}", "masks": "labels/{split}", "train": "train", "test": "val"}
    assert open_dataset(name(**parts), "test", root).ids == ("town/img6", "town/img7")
    assert len(open_dataset(name(**parts), "trainval", root)) == 8
    with pytest.raises(SettingError, match=r"`train` is no list in .* and `images` has no \{split\}"):
        open_dataset(name(train="train"), "train", root)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"classes": ()}, "no classes"),
        ({"classes": ("a", "a", "b")}, "two classes are named 'a'"),
        ({"ids": (1, 2)}, "3 classes and 2 ids"),
        ({"ids": (1, 2, 2)}, "'tree' and 'car' have one of the ids: 2"),
        ({"ids": (1, 2, 255), "ignore": (255,)}, "`ignore` and 'tree' have one"),
        ({"colours": ("#804080", "#0000ff", "blue")}, "'blue' is no colour. write #rrggbb"),
        ({"colours": COLOURS, "ids": (1, 2, 3)}, "both `ids` and `colours`"),
        ({"colors": COLOURS}, "did you mean 'colours'"),
        ({"ids": (1, 2, -3)}, "-3 is no id"),
        ({"every": 1}, "no train images in"),
        ({"train": "absent.txt"}, r"the list .*absent\.txt is missing"),
        ({"masks": "labells"}, r"folder .*labells is missing"),
        ({"mask_suffix": "_M.png"}, r"8 of 8 masks of train\.txt are missing"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_words(tmp_path, settings, words):
    folder(tmp_path / "own", colour=False)
    with pytest.raises(DenseCLError, match=words):
        open_dataset(name(**settings), "train", tmp_path / "own")


def test_more_classes_than_labels_are_refused():
    with pytest.raises(SettingError, match="there are 255 classes"):
        legend([f"c{k}" for k in range(255)])


def test_a_value_without_a_class_is_named_with_its_file_and_pixel(tmp_path):
    root = folder(tmp_path / "own")
    pixels = RGB[LABELS[2]].copy()
    pixels[7, 11] = (1, 2, 3)
    save(root / "labels" / "img2_L.png", pixels)
    dataset = open_dataset(name(colours=COLOURS), "train", root)
    with pytest.raises(DataError, match=r"img2_L\.png has the colour #010203 at x=11, y=7"):
        dataset.read_mask(2)
    with pytest.raises(DataError, match=r"img2_L\.png is in colour.*`colours`"):
        open_dataset(name(), "train", root).read_mask(2)
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    ids = folder(tmp_path / "ids", colour=False, void=9)
    with pytest.raises(DataError, match=r"img0_L\.png has the id 9 at x=0, y=0, which no class has"):
        class_index(open_dataset(name(), "train", ids))
    save(ids / "labels" / "img1_L.png", LABELS[1][:-1].astype(np.uint8))
    with pytest.raises(DataError, match=r"img1_L\.png is 42x17, its image .* is 42x18"):
        open_dataset(name(), "train", ids).read(1)
    save(root / "labels" / "img3_L.png", np.dstack([RGB[LABELS[3]], np.full(LABELS[3].shape, 100, np.uint8)]))
    with pytest.raises(DataError, match="transparent"):
        dataset.read_mask(3)
    save(root / "labels" / "img4_L.jpg", RGB[LABELS[4]])
    with pytest.raises(DataError, match="save masks as PNG"):
        dataset.legend.read(str(root / "labels" / "img4_L.jpg"))


def test_colours_of_16_bits_are_not_cut_to_8(tmp_path):
    """PIL would: two colours could become one."""
    rows = b"".join(b"\0" + np.full((4, 3), 0x80FF, ">u2").tobytes() for _ in range(4))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(DataError, match=r"deep\.png has 16 bits a colour"):
        legend(["a"], colours=["#808080"]).read(str(tmp_path / "deep.png"))


# describe -> recipe -> plan -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", [True, False])
def test_a_described_folder_is_a_recipe_that_runs(tmp_path, colour, capsys):
    root = folder(tmp_path / "Own 3", colour)
    (root / "classes.csv").write_text(
        "name,r,g,b\nvoid,0,0,0\nroad,128,64,128\ncar,0,0,255\ntree,0,255,1\n" if colour else "1,road\n2,car\n3,tree\n"
    )
    recipe = tmp_path / "recipes" / "benchmarks" / "own.toml"
    assert main(["data", "describe", str(root), "-o", str(recipe)]) == 0
    content = tomllib.loads(recipe.read_text())
    assert content["data"]["classes"] == (["car", "tree", "road"] if colour else ["road", "car", "tree"])
    assert (content["data"]["train"], content["data"]["test"]) == ("train.txt", "test.txt")
    plan = make_plan("own-2-1".replace("own-", content["family"]), "mib", catalogue=recipe.parents[1], device="cpu")
    sample = plan.train.read(1).mask.numpy()
    assert (sample == (np.array([0, 3, 1, 2])[LABELS[1]] if colour else LABELS[1])).all()
    capsys.readouterr()
    refused(capsys, ["data", "describe", root, "-o", recipe], "exists already")
    refused(capsys, ["data", "describe", root / "photos"], "no masks are seen")
    refused(capsys, ["data", "describe", root / "nowhere"], "there is no folder")


RECIPE = """family = "own"
summary = "of one's own"
splits = ["2-1", "named"]
backbone = "unet(width=8)"
[data]
name = "masks"
root = "../data"
classes = ["road", "car", "tree"]
images = "photos"
masks = "labels"
mask_suffix = "_L.png"
every = 5
[split.named.stream.groups]
things = ["tree", "road"]
stuff = ["car"]
"""


def test_a_run_on_a_colour_that_no_class_has_is_refused_in_one_line(tmp_path, capsys):
    folder(tmp_path / "data")
    (tmp_path / "benchmarks").mkdir()
    text = RECIPE.replace("mask_suffix", 'colours = ["#804080", "#0000ff", "#00ff00"]\nmask_suffix')
    (tmp_path / "benchmarks" / "own.toml").write_text(text)
    words = ["run", "-b", "own2-1", "-s", "mib", "--catalogue", tmp_path, "--output", tmp_path / "out", "--quiet"]
    refused(capsys, words, "_L.png has the colour #00ff01 at x=", "put it into `colours`")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"car", "tree"]', '"car", "car"]', "two classes are named 'car'"),
        ("mask_suffix", 'colours = ["#804080", "blue", "#00ff01"]\nmask_suffix', "'blue' is no colour"),
        ("every = 5", "every = -1", "masks.every cannot be -1"),
    ],
)
def test_a_recipe_that_cannot_run_is_not_shown(tmp_path, capsys, old, new, named):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "own.toml").write_text(RECIPE)
    shown = ["show", "own2-1", "--catalogue", str(tmp_path)]
    assert main(shown) == 0  # without its folder, which is not opened
    capsys.readouterr()
    (tmp_path / "benchmarks" / "own.toml").write_text(RECIPE.replace(old, new, 1))
    refused(capsys, shown, named)


def test_keys_of_data_are_settings_of_the_data_set_and_groups_are_named(tmp_path):
    folder(tmp_path / "data", colour=False)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "own.toml").write_text(RECIPE)
    plain = make_plan("own2-1", "mib", catalogue=tmp_path, device="cpu")
    named = make_plan("ownnamed", "mib", catalogue=tmp_path, device="cpu")
    assert plain.steps == ((1, 2), (3,))
    assert named.steps == ((3, 1), (2,))
    assert (named.settings.stream.split, named.settings.stream.groups) == ("2-1", {})
    assert plain.hash != named.hash
    assert len(plain.train) == 8
    typed = ["stream.groups.one=tree", "stream.groups.two=(road, car)"]
    assert make_plan("own2-1", "mib", catalogue=tmp_path, device="cpu", assignments=typed).steps == ((3,), (1, 2))
    more = make_plan("own2-1", "mib", catalogue=tmp_path, device="cpu", assignments=["data.every=2"])
    assert len(more.train) == 5
    with pytest.raises(DenseCLError, match=r"did you mean 'data\.images'"):
        make_plan("own2-1", "mib", catalogue=tmp_path, assignments=["data.imagess=photos"])
    with pytest.raises(SettingError, match=r"stream\.groups and stream\.order exclude each other"):
        make_plan("ownnamed", "mib", catalogue=tmp_path, assignments=["stream.order=3"])
