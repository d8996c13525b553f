"""Readers of depth and normals: NYUv2 in folders and as .mat, Cityscapes' disparity, Taskonomy."""

import json

import numpy as np
import pytest
from PIL import Image

from data_trees import noise_image
from densecl.check.data_set import check_data_set
from densecl.data import open_dataset
from densecl.data.maps import write_depth, write_normals
from densecl.data.sets.nyuv2 import NAMES_13, NAMES_40, TO_13, NYUv2
from densecl.data.sets.taskonomy import Taskonomy
from densecl.data.verify import verify
from densecl.errors import DataError


def grey(path, values, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype)).save(path)


def ramp(low, high, size=(6, 8)):
    return np.linspace(low, high, size[0] * size[1]).reshape(size)


def towards(x, y, z, size=(6, 8)):
    vector = np.array([x, y, z]) / np.linalg.norm([x, y, z])
    return np.broadcast_to(vector, (*size, 3))


# ---- NYUv2


@pytest.fixture
def nyu(tmp_path):
    """Folders with two training images and one test image."""
    root = tmp_path / "nyuv2"
    for split, ids in (("train", ("0003", "0001")), ("test", ("0002",))):
        for k, i in enumerate(ids):
            noise_image(root / split / "rgb" / f"{i}.jpg", (6, 8), seed=k)
            labels = np.arange(48).reshape(6, 8) % 41
            grey(root / split / "labels_40" / f"{i}.png", labels)
            grey(root / split / "labels_13" / f"{i}.png", np.array(TO_13)[labels])
            for kind in ("depth", "normals"):
                (root / split / kind).mkdir(exist_ok=True)
            write_depth(ramp(1 + k, 5), root / split / "depth" / f"{i}.png")
            write_normals(towards(1, 2, 2), root / split / "normals" / f"{i}.png")
        (root / f"{split}.txt").write_text("\n".join(ids))
    return root


def test_folders_of_nyuv2_have_all_four_truths(nyu):
    reader = NYUv2(nyu, "train")
    assert reader.ids == ("0003", "0001")  # the list decides the order, and so the thirds of tasks
    assert (reader.class_names, len(NAMES_40)) == (NAMES_13, 40)
    assert reader.read(0).mask[0, :5].tolist() == [255, 12, 5, 6, 1]
    depth, normals = reader.of("depth").read(1).mask, reader.of("normals").read(1).mask
    np.testing.assert_allclose(depth[0], ramp(2, 5), atol=6e-4)
    np.testing.assert_allclose(normals[:, 0, 0], [1 / 3, 2 / 3, 2 / 3], atol=5e-3)
    forty = open_dataset("nyuv2(classes=40)", "train", nyu)
    assert forty.read(0).mask[0, :5].tolist() == [255, 1, 2, 3, 4]
    assert forty.class_names == NAMES_40
    (nyu / "train.txt").unlink()
    assert NYUv2(nyu, "train").ids == ("0001", "0003")
    assert check_data_set(NYUv2, nyu) == []


def test_verify_reads_every_truth_and_what_is_absent_is_a_note(nyu, tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    lines = [str(finding) for finding in verify("nyuv2", nyu)]
    assert sum("depth of" in line or "normals of" in line for line in lines) == 4
    (nyu / "test" / "normals" / "0002.png").unlink()
    write_depth(ramp(1, 2, (6, 9)), nyu / "test" / "depth" / "0002.png")
    lines = [str(finding) for finding in verify("nyuv2", nyu)]
    assert any(line.startswith("note") and "test: without normals" in line for line in lines)
    assert any(line.startswith("error") and "0002.png is 9x6, its image" in line for line in lines)


@pytest.fixture
def mat(tmp_path):
    """The official files with three images."""
    h5py = pytest.importorskip("h5py")
    from scipy.io import savemat

    root, rng = tmp_path / "nyuv2", np.random.default_rng(0)
    root.mkdir()
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = rng.integers(0, 256, (3, 3, 640, 480), dtype=np.uint8)
        file["labels"] = rng.integers(0, 895, (3, 640, 480)).astype(np.uint16)
        file["depths"] = rng.uniform(0.7, 9, (3, 640, 480)).astype(np.float32)
    savemat(root / "splits.mat", {"trainNdxs": np.array([[1], [3]]), "testNdxs": np.array([[2]])})
    savemat(root / "classMapping40.mat", {"mapClass": 1 + np.arange(894)[None] % 40})
    return root


def test_the_official_file_gives_the_same(mat):
    import h5py

    with h5py.File(mat / "nyu_depth_v2_labeled.mat") as file:
        image, labels, depths = (file[key][2] for key in ("images", "labels", "depths"))
    reader = NYUv2(mat, "train", classes=40)
    assert reader.ids == ("0001", "0003")
    sample = reader.read(1)
    assert np.array_equal(sample.image.numpy(), image.transpose(0, 2, 1))  # (3, height, width)
    assert np.array_equal(sample.mask.numpy(), np.where(labels == 0, 255, 1 + (labels.astype(int) - 1) % 40).T)
    assert np.array_equal(reader.of("depth").read(1).mask[0].numpy(), depths.T)
    thirteen = NYUv2(mat, "train").read(1).mask.numpy()
    table = np.array(TO_13)
    assert np.array_equal(thirteen, np.where(labels == 0, 255, table[1 + (labels.astype(int) - 1) % 40]).T)
    assert reader.content != reader.of("depth").content
    with pytest.raises(DataError, match=r"train is missing.*it has no normals"):
        reader.of("normals")
    (mat / "train" / "normals").mkdir(parents=True)
    for i in reader.ids:
        write_normals(towards(0, 0, 1, (480, 640)), mat / "train" / "normals" / f"{i}.png")
    assert reader.of("normals").read(0).mask[2].min() > 0.99


def test_broken_official_files_are_named(mat, monkeypatch):
    (mat / "classMapping40.mat").unlink()
    with pytest.raises(DataError, match=r"classMapping40.mat is missing.*rcnn-depth"):
        NYUv2(mat, "train")
    (mat / "splits.mat").write_bytes(b"no matrix")
    with pytest.raises(DataError, match=r"splits.mat cannot be read"):
        NYUv2(mat, "train")


def test_without_h5py_the_extra_is_named(mat, monkeypatch):
    reader = NYUv2(mat, "train")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(DataError, match=r"needs h5py.*densecl\[nyuv2\]"):
        reader.read(0)
    monkeypatch.undo()
    (mat / "nyu_depth_v2_labeled.mat").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"nyu_depth_v2_labeled.mat cannot be read"):
        reader.read(0)


# ---- Cityscapes


@pytest.fixture
def streets(tmp_path):
    root = tmp_path / "cityscapes"
    for split, city in (("train", "ulm"), ("val", "lindau")):
        name = f"{city}_000000_000019"
        noise_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", (6, 8))
        grey(root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png", np.full((6, 8), 7))
        stored = np.zeros((6, 8))
        stored[1:] = 1 + 256 * ramp(2, 80, (5, 8))
        stored[0, 3] = 1  # disparity 0: infinitely far
        grey(root / "disparity" / split / city / f"{name}_disparity.png", stored, np.uint16)
    return root


@pytest.mark.parametrize("camera", [None, (0.22, 2300.0)])
def test_depth_is_baseline_times_focal_length_over_disparity(streets, camera):
    baseline, focal = camera or (0.209313, 2262.52)
    if camera:
        file = streets / "camera" / "train" / "ulm" / "ulm_000000_000019_camera.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"extrinsic": {"baseline": baseline}, "intrinsic": {"fx": focal}}))
    depth = open_dataset("cityscapes", "train", streets).of("depth").read(0).mask[0].numpy()
    assert not depth[0].any()
    disparity = (np.floor(1 + 256 * ramp(2, 80, (5, 8))) - 1) / 256
    np.testing.assert_allclose(depth[1:], baseline * focal / disparity, rtol=1e-5)
    assert open_dataset("cityscapes", "trainval", streets).of("depth").read(1).mask.shape == (1, 6, 8)


def test_a_camera_without_numbers_is_named(streets):
    file = streets / "camera" / "train" / "ulm" / "ulm_000000_000019_camera.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    with pytest.raises(DataError, match=r"ulm_000000_000019_camera.json has no baseline and fx"):
        open_dataset("cityscapes", "train", streets).of("depth").read(0)


# ---- Taskonomy


@pytest.fixture(params=["", "taskonomy"])
def rooms(tmp_path, request):
    """Three buildings with two views each."""
    root = tmp_path / "taskonomy"
    for k, building in enumerate(("ackermanville", "beechwood", "cauthron")):
        for view in ("point_0_view_0", "point_0_view_1"):
            folder = [
                root / kind / request.param / building
                for kind in ("rgb", "depth_zbuffer", "normal", "segment_semantic")
            ]
            for place in folder:
                place.mkdir(parents=True, exist_ok=True)
            noise_image(folder[0] / f"{view}_domain_rgb.png", (6, 8), seed=k)
            depth = np.rint(512 * ramp(0.5, 20))
            depth[0, 0] = 65535
            grey(folder[1] / f"{view}_domain_depth_zbuffer.png", depth, np.uint16)
            write_normals(towards(0, 1, 1), folder[2] / f"{view}_domain_normal.png")
            grey(folder[3] / f"{view}_domain_segmentsemantic.png", np.arange(48).reshape(6, 8) % 18)
    rows = ["id,train,val,test", "ackermanville,1,0,0", "beechwood,0,1,0", "cauthron,0,0,1", "darden,1,0,0"]
    (root / "train_val_test_tiny.csv").write_text("\n".join(rows))
    return root


def test_taskonomy_has_the_buildings_of_a_split_and_the_tasks_that_are_there(rooms):
    reader = Taskonomy(rooms, "train")
    assert reader.ids == ("ackermanville/point_0_view_0", "ackermanville/point_0_view_1")
    assert reader.read(0).mask[0].tolist() == [255, 0, 1, 2, 3, 4, 5, 6]
    depth, normals = reader.of("depth").read(0).mask[0], reader.of("normals").read(0).mask
    assert depth[0, 0] == 0
    np.testing.assert_allclose(depth[5, 7], 20, atol=1e-3)
    np.testing.assert_allclose(normals[:, 0, 0], [0, -(0.5**0.5), 0.5**0.5], atol=5e-3)  # y up
    assert len(Taskonomy(rooms, "train", every=2)) == 1
    assert check_data_set(Taskonomy, rooms) == []
    import shutil

    shutil.rmtree(rooms / "segment_semantic")
    shutil.rmtree(rooms / "normal")
    reader = Taskonomy(rooms, "test")
    assert not reader.has_masks
    assert reader.of("depth").read(0).mask.shape == (1, 6, 8)
    with pytest.raises(DataError, match=r"normal"):
        reader.of("normals")


def test_taskonomy_without_its_list_says_where_it_is(rooms):
    (rooms / "train_val_test_tiny.csv").write_text("id;train\nackermanville;1\n")
    with pytest.raises(DataError, match=r"train_val_test_tiny.csv has not the columns"):
        Taskonomy(rooms, "train")
    (rooms / "train_val_test_tiny.csv").unlink()
    with pytest.raises(DataError, match=r"train_val_test_tiny.csv is missing.*splits_taskonomy.zip"):
        Taskonomy(rooms, "train")
