"""ADE20K, Cityscapes and COCO on small trees in their real layouts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_trees import noise_image, square
from densecl.data import data_set, open_dataset
from densecl.data.class_index import class_index
from densecl.data.sets import cityscapes, coco
from densecl.data.sets.ade20k import ADE20K
from densecl.data.sets.cityscapes import Cityscapes
from densecl.data.sets.coco import COCO, semantic_mask
from densecl.data.verify import verify
from densecl.errors import DataError, SettingError, UnknownNameError
from densecl.runner.build import domains_of
from densecl.settings.catalogue import benchmark_recipe
from densecl.streams import protocol
from densecl.streams.scenario import domain_incremental

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))


def grey(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(path)


# ADE20K ------------------------------------------------------------------------------------------


@pytest.fixture
def ade(tmp_path) -> Path:
    folder = tmp_path / "ade20k" / "ADEChallengeData2016"
    for part, short, count in (("training", "train", 3), ("validation", "val", 2)):
        for k in range(1, count + 1):
            name = f"ADE_{short}_{k:08d}"
            noise_image(folder / "images" / part / f"{name}.jpg", (4, 6), seed=k)
            grey(folder / "annotations" / part / f"{name}.png", np.array([[0, 1, 150, k, k, k]] * 4))
    return folder


def test_ade20k_reads_the_challenges_layout_and_ignores_other(tmp_path, ade):
    dataset = open_dataset("ade20k", "train", tmp_path)
    assert dataset.root == ade
    assert dataset.ids == tuple(f"ADE_train_{k:08d}" for k in (1, 2, 3))
    assert not dataset.has_background
    assert len(dataset.class_names) == len(set(dataset.class_names)) == 150
    assert (dataset.class_names[0], dataset.class_names[12], dataset.class_names[149]) == ("wall", "person", "flag")
    assert dataset.read(1).mask[0].tolist() == [255, 1, 150, 2, 2, 2]
    assert np.flatnonzero(dataset.read_labels(2)).tolist() == [1, 3, 150, 255]
    assert len(open_dataset("ade", "test", tmp_path)) == 2


def test_ade20k_names_images_and_masks_without_a_partner(ade):
    for k in (1, 2):
        (ade / "annotations" / "training" / f"ADE_train_{k:08d}.png").unlink()
    with pytest.raises(DataError, match=r"2 of 3 masks of .*training are missing.*ADE_train_00000001\.png, ADE_tr"):
        ADE20K(ade, "train")
    (ade / "images" / "validation" / "ADE_val_00000002.jpg").unlink()
    with pytest.raises(
        DataError, match=r"1 of 2 images of .*validation.*ADE_val_00000002\.jpg.*ADEChallengeData2016\.zip"
    ):
        ADE20K(ade, "val")
    shutil.rmtree(ade / "annotations" / "validation")
    with pytest.raises(DataError, match=r"annotations/validation is missing"):
        ADE20K(ade, "val")
    with pytest.raises(DataError, match="no ADE20K layout"):
        ADE20K(ade / "images" / "training", "val")


def test_ade20k_refuses_ids_beyond_150(ade):
    grey(ade / "annotations" / "training" / "ADE_train_00000002.png", np.full((4, 6), 151))
    with pytest.raises(DataError, match=r"00000002\.png holds the class id 151\. legal in ade20k: 0-150"):
        ADE20K(ade, "train").read(1)


# Cityscapes ------------------------------------------------------------------------------------------

IDS = np.array([[0, 7, 8, 9, 33, 10], [11, 12, 13, 1, 26, 23]])


@pytest.fixture
def streets(tmp_path) -> Path:
    folder = tmp_path / "cityscapes"
    for part, cities in (("train", {"ulm": 2, "aachen": 3, "jena": 1}), ("val", {"munster": 2, "frankfurt": 1})):
        for city, count in cities.items():
            for k in range(count):
                name = f"{city}_{k:06d}_000019"
                noise_image(folder / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png", (2, 6), seed=k)
                grey(folder / "gtFine" / part / city / f"{name}_gtFine_labelIds.png", IDS)
                (folder / "gtFine" / part / city / f"{name}_gtFine_polygons.json").write_text("{}")
    return folder


def test_cityscapes_scores_19_classes_and_ignores_the_rest(tmp_path, streets):
    dataset = open_dataset("cityscapes", "train", tmp_path)
    assert (len(dataset), len(dataset.class_names), dataset.has_background) == (6, 19, False)
    assert dataset.read(0).mask.tolist() == [[255, 1, 2, 255, 19, 255], [3, 4, 5, 255, 14, 11]]
    assert (dataset.class_names[0], dataset.class_names[13], dataset.class_names[18]) == ("road", "car", "bicycle")
    assert len(open_dataset("cityscapes", "test", streets)) == 3
    assert len(open_dataset("cityscapes", "trainval", streets)) == 9


def test_cities_can_be_chosen_and_make_domains(streets):
    assert {i.split("_")[0] for i in Cityscapes(streets, "train", cities=("jena", "ulm")).ids} == {"jena", "ulm"}
    with pytest.raises(UnknownNameError, match="unknown city of train 'munster'"):
        Cityscapes(streets, "train", cities=("munster",))
    dataset = Cityscapes(streets, "trainval")
    cities = dataset.domains()
    assert list(cities) == ["aachen", "jena", "ulm", "frankfurt", "munster"]  # the published order, not the alphabet's
    assert len(cityscapes.CITIES) == 21
    steps = domains_of(dataset, protocol.steps("3-1", len(cities)))
    named = [[dataset.ids[i].split("_")[0] for i in step] for step in steps]
    assert named == [["aachen"] * 3 + ["jena"] + ["ulm"] * 2, ["frankfurt"], ["munster"] * 2]


def test_cityscapes_names_images_without_masks(streets):
    (streets / "gtFine" / "train" / "aachen" / "aachen_000001_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(DataError, match=r"1 of 6 masks of .*missing in .*aachen: aachen_000001_000019_gtFine_labelIds"):
        Cityscapes(streets, "train")
    shutil.rmtree(streets / "gtFine" / "val")
    with pytest.raises(DataError, match=r"gtFine/val is missing.*cityscapes-dataset\.com"):
        Cityscapes(streets, "val")


def test_a_domain_incremental_stream_shows_all_classes_at_every_step(streets):
    train, test = Cityscapes(streets, "train"), Cityscapes(streets, "test")
    cities = domains_of(train, protocol.steps("1-1", 3))
    scenario = domain_incremental(train, test, cities)
    steps = scenario.experiences
    assert [len(step.images.indices) for step in steps] == [3, 1, 2]
    assert [len(step.new_classes) for step in steps] == [19, 0, 0]
    assert [step.n_outputs for step in steps] == [20, 20, 20]
    assert len(scenario.stream.class_names) == 20
    assert all(np.array_equal(step.images.table, steps[0].images.table) for step in steps)
    assert np.flatnonzero(steps[2].presence[0]).tolist() == [1, 2, 3, 4, 5, 11, 14, 19, 255]
    assert len(scenario.tests[0]) == 3
    joint = domain_incremental(train, test, cities, joint=True)
    assert [len(step.images.indices) for step in joint.train_stream] == [6]
    with pytest.raises(SettingError, match="step 1 has no image"):
        domain_incremental(train, test, [cities[0], np.array([], int)])
    with pytest.raises(SettingError, match="belongs to two domains"):
        domain_incremental(train, test, [cities[0], cities[0]])


# COCO ------------------------------------------------------------------------------------------


def coco_file(folder: Path, **change: object) -> Path:
    """A COCO tree whose training annotations are changed."""
    images = [{"id": k, "file_name": name, "height": 9, "width": 11} for k, name in ((1, "a.jpg"), (2, "b.jpg"))]
    content = {"images": images, "annotations": [square(4, 18, 1, 2, 3)], **change}
    for name in ("a.jpg", "b.jpg", "a.png"):
        noise_image(folder / "train2017" / name, (9, 11))
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return folder


def test_images_of_one_stem_have_a_mask_each(tmp_path):
    images = [{"id": k, "file_name": name, "height": 9, "width": 11} for k, name in ((1, "a.jpg"), (2, "a.png"))]
    annotations = [square(4, 18, 1, 2, 3), square(5, 1, 6, 6, 2, image_id=2)]
    dataset = COCO(coco_file(tmp_path, images=images, annotations=annotations), "train")
    assert dataset.ids == ("a.jpg", "a.png")
    assert [np.unique(dataset.read_mask(i)).tolist() for i in (0, 1)] == [[0, 17], [0, 1]]


IMAGE = {"id": 1, "file_name": "a.jpg", "height": 9, "width": 11}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"annotations": [square(4, 18, 1, 2, 3, image_id="1")]}, r"annotation 4 is of image '1', which is not among"),
        ({"annotations": [square(4, 18, 1, 2, 3, image_id=7)]}, "annotation 4 is of image 7, which is not among"),
        ({"annotations": [square(4, 18, 1, 2, 3, image_id=[1])]}, r"annotation 4 is of image \[1\], which is not"),
        ({"annotations": [square(4, 18, 1, 2, 3), square(4, 1, 6, 6, 2)]}, "annotation 4 is there twice"),
        ({"annotations": [{**square(4, 18, 1, 2, 3), "id": None}]}, "an annotation without a number as id"),
        ({"annotations": [7]}, "an annotation without a number as id"),
        ({"images": [IMAGE, {**IMAGE, "file_name": "b.jpg"}]}, "image id 1 is there twice"),
        ({"images": [IMAGE, {**IMAGE, "id": 2}]}, "image a.jpg is there twice"),
        ({"images": [{**IMAGE, "file_name": "../a.jpg"}]}, r"image '\.\./a\.jpg' is no path below train2017"),
        ({"images": [{**IMAGE, "file_name": 3}]}, "an image without id, file_name, height or width"),
        ({"images": [{**IMAGE, "height": 0}]}, "an image without id, file_name, height or width"),
        ({"images": [{**IMAGE, "id": True}]}, "an image without id, file_name, height or width"),
        ({"images": [{**IMAGE, "height": 10**6, "width": 10**6}]}, "pixels that are read"),
        ({"images": 7}, "no list 'images'"),
        ({"annotations": None}, "no list 'annotations'"),
    ],
)
def test_a_coco_file_that_does_not_fit_itself_is_refused_in_words(tmp_path, change, words):
    (tmp_path / "train2017").mkdir()
    with pytest.raises(DataError, match=rf"(instances_train2017\.json:? |a\.jpg has ).*{words}") as caught:
        COCO(coco_file(tmp_path, **change), "train")
    assert "Error" not in str(caught.value)


@pytest.fixture
def instances(tmp_path) -> Path:
    folder = tmp_path / "coco"
    for part in ("train2017", "val2017"):
        images = [{"id": k, "file_name": f"{k:012d}.jpg", "height": 9, "width": 11} for k in (2, 1)]
        for image in images:
            noise_image(folder / part / str(image["file_name"]), (9, 11))
        content = {"images": images, "annotations": [square(4, 18, 1, 2, 3)], "categories": []}
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return folder


def test_coco_is_painted_once_and_again_when_the_annotations_change(tmp_path, instances, monkeypatch):
    dataset = open_dataset("coco", "train", tmp_path)
    assert dataset.ids == ("000000000001", "000000000002")
    assert dataset.has_background
    expected = np.zeros((9, 11), np.uint8)
    expected[2:5, 1:4] = 17
    np.testing.assert_array_equal(dataset.read(0).mask.numpy(), expected)
    assert not dataset.read_mask(1).any()  # an image without instances is background
    assert class_index(dataset)[:, 17].tolist() == [True, False]
    with monkeypatch.context() as patch:
        patch.setattr(coco, "semantic_mask", None)
        assert COCO(instances, "train").mask_files == dataset.mask_files
    path = instances / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"].append(square(5, 1, 6, 6, 2))
    path.write_text(json.dumps(content))
    again = COCO(instances, "train")
    assert again.mask_files != dataset.mask_files
    assert again.read_mask(0)[7, 7] == 1


def test_painting_goes_on_where_it_was_interrupted(instances, monkeypatch):
    calls = []

    def fails(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return semantic_mask(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(coco, "semantic_mask", fails)
        with pytest.raises(KeyboardInterrupt):
            coco.paint(instances, "val2017")
        assert not list(Path(coco.cache_folder()).rglob("images.txt"))
        calls.append(1)
        coco.paint(instances, "val2017")
    assert len(calls) == 4  # one before, one that failed, one of the test, one that was left
    assert len(COCO(instances, "val")) == 2


def test_coco_names_absent_images_and_broken_annotations(instances):
    (instances / "train2017" / "000000000002.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images of .*instances_train2017\.json are missing.*000000000002"):
        COCO(instances, "train")
    (instances / "annotations" / "instances_val2017.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"instances_val2017\.json is not JSON"):
        COCO(instances, "val")
    (instances / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(DataError, match=r"instances_val2017\.json is missing.*cocodataset\.org"):
        COCO(instances, "val")


def test_coco_has_80_classes_in_order_of_their_ids():
    assert (len(COCO.class_names), COCO.class_names[0], COCO.class_names[79]) == (80, "person", "toothbrush")
    assert list(coco.CATEGORIES) == sorted(coco.CATEGORIES)
    assert (coco.LABELS[1], coco.LABELS[13], coco.LABELS[90]) == (1, 12, 80)


# all ------------------------------------------------------------------------------------------


def test_all_are_verified_made_and_located(tmp_path, ade, streets, instances):
    for name, folder in (("ade20k", ade), ("cityscapes", streets), ("coco2017", instances)):
        findings = verify(name, tmp_path)
        assert {f.level for f in findings} <= {"ok", "note"}, findings
        assert any("training images are absent" in f.text for f in findings)
        assert data_set(name).locate(tmp_path) == folder == data_set(name).get(tmp_path)
    assert COCO.make(tmp_path) == tmp_path / "cache" / "coco"


@pytest.mark.parametrize("name", ["ade20k", "cityscapes", "coco"])
def test_absent_data_says_where_to_get_it(tmp_path, name):
    with pytest.raises(DataError, match=rf"no {name} data in .*--data or DENSECL_DATA"):
        open_dataset(name, "train", tmp_path)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("ade100-50", [100, 50]), ("ade100-10", [100] + [10] * 5), ("ade50-50", [50] * 3),
        ("cityscapes14-1", [14] + [1] * 5), ("coco60-20", [60, 20]), ("coco40-40", [40, 40]),
    ],
)  # fmt: skip
def test_recipes_fit_their_data_sets(name, steps):
    recipe, split = benchmark_recipe(name)
    assert recipe.classes == len(data_set(recipe.data["name"]).class_names)
    assert [len(step) for step in protocol.steps(split, recipe.classes)] == steps
    assert split in recipe.splits


def test_a_domain_incremental_run_trains_by_city_and_is_scored_on_all_classes(streets, tmp_path):
    from densecl.cli import main
    from densecl.records.record import find_records

    root = streets if isinstance(streets, Path) else streets[0]
    cities = len(Cityscapes(root, "trainval").domains())
    words = ["run", "-b", "cityscapes-domain11-5", "-s", "mib", "--data", str(root), "--output", str(tmp_path / "out")]
    assert main(words) == 2  # the tree has fewer cities than the split counts
    assert cities < 21
    (tmp_path / "catalogue" / "benchmarks").mkdir(parents=True)
    recipe = f"""family = "streets"\nsummary = "tiny"\nclasses = {cities}\nsplits = ["1-1"]
backbone = "bisenet(encoder=mini,weights=none,width=8,spatial=(8,8),spatial_width=8,context_width=8,fusion=1)"
[data]\nname = "cityscapes"\nsplit = "trainval"\n[stream]\nkind = "domain"
[training]\niterations = 2\nbatch = 2\naugmentation = "flip"\ncrop = "full"\n[evaluation]\nsize = "full"\n"""
    (tmp_path / "catalogue" / "benchmarks" / "streets.toml").write_text(recipe)
    words[2], words[-1] = "streets1-1", str(tmp_path / "out2")
    assert main([*words, "--catalogue", str(tmp_path / "catalogue")]) == 0
    ((_, record),), _ = find_records(tmp_path / "out2")
    assert len(record.steps) == cities
    assert [len(step.new_classes) for step in record.steps] == [19] + [0] * (cities - 1)
