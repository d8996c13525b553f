"""Classes of whole images: the drawn marks, and folders of classes in every layout; clear lines for what is wrong."""

import hashlib

import numpy as np
import pytest
from scipy.io import savemat

from data_trees import class_tree, few_drawn, flowers_tree, noise_image
from densecl.cli import main
from densecl.data import open_dataset
from densecl.data.class_index import mask_contents
from densecl.data.sets.class_folders import KNOWN, ClassFolders
from densecl.data.sets.marks import CLASSES, Marks
from densecl.data.verify import verify
from densecl.errors import DenseCLError

# SHA-256 of images, masks and labels of train, val and test, split by split. `version` is its beginning.
PIXELS = "4c375e6e8ab8b4cbedf56ec96425c6b1b074818cbb7e39351c1980382ced0ede"


def opened(text, split, root):
    """Ids and the names of their classes."""
    reader = open_dataset(text, split, root)
    known = reader.of("class")
    numbers = [known.read_truth(i) for i in range(len(known))]
    assert all(n.shape == (1, *reader.image_size(i)) and (n == n[0, 0, 0]).all() for i, n in enumerate(numbers))
    return {i: reader.image_classes[int(n[0, 0, 0]) - 1] for i, n in zip(reader.ids, numbers, strict=True)}


# ---- drawn marks


def test_pixels_are_pinned():
    digest = hashlib.sha256()
    for split in ("train", "val", "test"):
        for part in Marks.draw(Marks.counts[split], Marks.seeds[split]):
            digest.update(part.tobytes())
    assert digest.hexdigest() == PIXELS
    assert PIXELS.startswith(Marks.version)


def test_marks_are_as_many_as_the_label_says_and_of_one_hue():
    from scipy.ndimage import label

    drawn = Marks.draw(60, 5)
    for image, mask, labels in zip(drawn.images, drawn.masks, drawn.labels, strict=True):
        quarters = mask.reshape(2, 24, 2, 24).any((1, 3)).sum()
        assert quarters == label(mask, np.ones((3, 3)))[1] == labels[3]
        red, green, blue = image[mask == 1].astype(float).mean(0)
        hue = np.arctan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * np.pi)
        distance = (hue - (labels[1] - 1) / 6 + 0.5) % 1 - 0.5
        assert abs(distance) < 0.06


def test_no_class_tells_another():
    labels = Marks.draw(2000, 41).labels.astype(int) - 1
    for one in range(len(CLASSES)):
        for other in range(one):
            counts = np.zeros((len(list(CLASSES.values())[one]), len(list(CLASSES.values())[other])))
            np.add.at(counts, (labels[:, one], labels[:, other]), 1)
            expected = counts.sum(1, keepdims=True) * counts.sum(0) / len(labels)
            chi = ((counts - expected) ** 2 / expected).sum()
            freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
            assert chi < freedom + 4 * (2 * freedom) ** 0.5


def test_each_property_is_a_class_of_the_same_images(tmp_path, monkeypatch):
    few_drawn(monkeypatch, 12, 4, 6)
    Marks.write(Marks.folder(tmp_path))
    drawn = Marks.draw(12, Marks.seeds["train"])
    digests = set()
    for k, (by, names) in enumerate(CLASSES.items()):
        found = opened(f"marks(by={by})", "train", tmp_path)
        assert list(found.values()) == [names[number - 1] for number in drawn.labels[:, k]]
        reader = open_dataset(f"marks(by={by})", "train", tmp_path)
        digests.add((reader.content, mask_contents(reader.of("class"), folder=tmp_path / "i").digests.tobytes()))
    assert len(digests) == len(CLASSES)
    (Marks.folder(tmp_path) / "labels.txt").write_text("train_0000 9 9 9 9 9 9\n")
    with pytest.raises(DenseCLError, match=r"labels.txt has no hue of train_0000.*densecl data make marks"):
        opened("marks(by=hue)", "train", tmp_path)


# ---- folders


def test_splits_in_folders_and_the_validation_images_for_want_of_test_images(tmp_path):
    class_tree(tmp_path, "train", ("b", "a"), 3)
    class_tree(tmp_path, "val", ("a", "b"), 2)
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "0.png").write_bytes(b"unlabelled, as in the Decathlon")
    assert opened("class_folders", "train", tmp_path) == {f"{c}/{k}.png": c for c in "ab" for k in range(3)}
    assert opened("class_folders", "test", tmp_path) == opened("class_folders", "val", tmp_path)
    assert open_dataset("class_folders", "test", tmp_path).source == "val"
    class_tree(tmp_path, "test", ("a",), 1)
    test = open_dataset("class_folders", "test", tmp_path)
    assert (test.ids, test.image_classes) == (("a/0.png",), ("a", "b"))


def test_classes_without_splits_are_split_by_lists_or_each_fifth_image(tmp_path):
    class_tree(tmp_path, "", ("a b", "c"), 7)
    held = {"a b/4.png": "a b", "c/4.png": "c"}
    assert opened("class_folders", "test", tmp_path) == held
    assert set(opened("class_folders", "train", tmp_path)) == {
        f"{c}/{k}.png" for c in ("a b", "c") for k in range(7)
    } - {*held}
    assert len(open_dataset("class_folders(every=3)", "test", tmp_path)) == 4
    (tmp_path / "train.txt").write_text("c/1.png 0\n/a b/0.png 1\n")
    (tmp_path / "test.txt").write_text("c/2.png\n")
    assert opened("class_folders", "train", tmp_path) == {"c/1.png": "c", "a b/0.png": "a b"}
    assert opened("class_folders", "test", tmp_path) == {"c/2.png": "c"}


def cub(root):
    paths = ["001.Tern/x.jpg", "001.Tern/y.jpg", "002.Auk/z.jpg", "002.Auk/w.jpg"]
    for path in paths:
        noise_image(root / "CUB_200_2011" / "images" / path, (6, 8))
    (root / "CUB_200_2011" / "images.txt").write_text("".join(f"{k} {p}\n" for k, p in enumerate(paths, 1)))
    (root / "CUB_200_2011" / "train_test_split.txt").write_text("1 1\n2 0\n3 0\n4 1\n")


def cars(root):
    own = root / "stanford_cars"
    (own / "devkit").mkdir(parents=True)
    names = np.empty((1, 2), object)
    names[0, 0], names[0, 1] = "Audi S4", "BMW M3"
    savemat(own / "devkit" / "cars_meta.mat", {"class_names": names})
    fields = [("bbox_x1", object), ("class", object), ("fname", object)]
    for split, classes, place in (("train", (2, 1), "devkit/cars_train_annos"), ("test", (1, 2), TEST_ANNOTATIONS)):
        rows = np.empty((1, len(classes)), fields)
        for k, number in enumerate(classes):
            rows[0, k] = (1, number, f"{k}.jpg")
            noise_image(own / f"cars_{split}" / f"{k}.jpg", (6, 8))
        savemat(own / f"{place}.mat", {"annotations": rows})


TEST_ANNOTATIONS = "cars_test_annos_withlabels"
TREES = {
    "cub": (cub, {"001.Tern/x.jpg": "001.Tern", "002.Auk/w.jpg": "002.Auk"}, ("001.Tern", "002.Auk")),
    "cars": (cars, {"0.jpg": "BMW M3", "1.jpg": "Audi S4"}, ("Audi S4", "BMW M3")),
    "flowers": (
        lambda root: flowers_tree(root / "flowers-102"),
        {"image_00001.jpg": "001", "image_00004.jpg": "003", "image_00002.jpg": "002"},
        ("001", "002", "003"),
    ),
}


@pytest.mark.parametrize("like", TREES)
def test_a_known_data_set_is_read_from_its_own_lists(like, tmp_path):
    write, train, classes = TREES[like]
    write(tmp_path)
    assert opened(f"class_folders(like={like})", "train", tmp_path) == train
    test = open_dataset(f"class_folders(like={like})", "test", tmp_path)
    assert test.image_classes == classes
    assert not {*test.image_files} & {*open_dataset(f"class_folders(like={like})", "train", tmp_path).image_files}


@pytest.mark.parametrize("like", sorted({*KNOWN} - {"decathlon"}))
def test_each_known_data_set_may_be_folders_of_classes_and_tells_how_many_images_are_absent(like, tmp_path):
    for split in ("train", "test"):
        class_tree(tmp_path / KNOWN[like].folders[0], split, "ab", 2)
    findings = verify(f"class_folders(like={like})", tmp_path)
    assert not [str(f) for f in findings if f.level == "error"]
    texts = [f.text for f in findings]
    assert any(f"{KNOWN[like].counts['train'] - 4:,} of" in text for text in texts)
    assert "class of 4 images (2 classes)" in texts


def test_a_part_of_the_decathlon(tmp_path):
    for split in ("train", "val"):
        class_tree(tmp_path / "decathlon-1.0" / "aircraft", split, ("0001", "0002"), 2)
    assert len(opened("class_folders(like=decathlon, part=aircraft)", "test", tmp_path)) == 4
    with pytest.raises(DenseCLError, match=r"unknown part of decathlon 'aircrafts'.*aircraft"):
        open_dataset("class_folders(like=decathlon, part=aircrafts)", "test", tmp_path)


def refusals(root):
    """Text of a data set, what is written before it is opened, and words of the message."""
    yield "class_folders", lambda: None, ["has no folders of classes", "train/CLASS"]
    yield "class_folders", lambda: class_tree(root, "", "a", 6), ["has one class, 'a'"]
    yield "class_folders(like=cub)", lambda: None, ["no cub data in", "CUB_200_2011", "class_folders(like=cub, folder"]
    yield "class_folders(folder=no)", lambda: None, ["there is no folder", "no"]
    yield "class_folders(like=cubs)", lambda: None, ["like", "cubs"]
    yield "class_folders(every=1)", lambda: None, ["every", "1"]


@pytest.mark.parametrize("case", range(6))
def test_what_is_not_there_is_told_in_one_line(case, tmp_path):
    text, write, words = list(refusals(tmp_path))[case]
    write()
    with pytest.raises(DenseCLError) as error:
        open_dataset(text, "train", tmp_path)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: class_tree(root, "test", "c", 1), ["test has the class 'c', and train has not"]),
        (lambda root: (root / "train" / "a" / "0.png").write_bytes(b"x"), ["0.png cannot be read: not an image"]),
        (lambda root: (root / "train").rename(root / "trained"), ["has no folders of classes"]),
    ],
)
def test_damaged_folders_are_told_by_verify(change, words, tmp_path):
    for split in ("train", "test"):
        class_tree(tmp_path, split, "ab", 2)
    change(tmp_path)
    found = " ".join(str(f) for f in verify("class_folders", tmp_path) if f.level == "error")
    assert all(word in found for word in words), found


@pytest.mark.parametrize("text", ["c/1.png\nd/1.png\n", "1.png\n", "../c/1.png\n", "c/9.png\n", ""])
def test_a_list_that_names_what_is_not_there_is_refused(text, tmp_path):
    class_tree(tmp_path, "", "bc", 2)
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(DenseCLError, match="train"):
        open_dataset("class_folders", "train", tmp_path)


def test_a_reader_travels_to_other_processes_and_its_classes_decide_its_content(tmp_path):
    import pickle

    class_tree(tmp_path, "train", "ab", 2)
    class_tree(tmp_path, "val", "ab", 2)
    reader = open_dataset("class_folders", "train", tmp_path)
    again = pickle.loads(pickle.dumps(reader.of("class")))
    assert again.read(0).mask.unique().tolist() == [1]
    before = reader.of("class").content
    (tmp_path / "train" / "a" / "1.png").rename(tmp_path / "train" / "b" / "9.png")
    assert open_dataset("class_folders", "train", tmp_path).of("class").content != before
    assert isinstance(reader, ClassFolders)


def test_the_command_tells_the_place_and_refuses(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    assert main(["data", "verify", "class_folders(like=sketch)", "--data", str(tmp_path)]) == 2
    assert "looked for sketches, sketch" in capsys.readouterr().out
    class_tree(tmp_path / "sketch", "", "ab", 10)
    assert main(["data", "verify", "class_folders(like=sketch)", "--data", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "class of 16 images (2 classes)" in out
