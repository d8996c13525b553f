"""The page of the report: how it is built, and what it does with bad input."""

import itertools
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from densecl.cli import main
from densecl.records.record import find_records
from densecl.report.album import read_picture
from densecl.report.page import render
from report_runs import committed, edited

# ---- the page


class Reader(HTMLParser):
    """Parts of a page that tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.levels, self.unnamed, self.tags = [], [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.add(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        for name in ("href", "src", "xlink:href", "data", "action", "poster", "srcset"):
            if name in attributes:
                self.links.append(attributes[name])
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        named = attributes.get("aria-label") and attributes.get("role") == "img"
        if tag == "svg" and not (named or attributes.get("aria-hidden") == "true"):
            self.unnamed.append(attributes)


@pytest.fixture(scope="module")
def page(report_runs):
    return (report_runs / "report.html").read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_and_its_links_lead_somewhere(page):
    reader = Reader(page)
    assert len(reader.ids) == len(set(reader.ids))
    inside = {f"#{name}" for name in reader.ids}
    assert all(link in inside or link.startswith("data:") for link in reader.links), "a link leads out of the page"
    assert not re.search(r"@import|url\((?!#|data:)", page)
    assert not reader.tags & {"iframe", "object", "embed", "img", "audio", "video", "base"}
    assert "default-src 'none'" in page


def test_headings_descend_one_by_one_and_every_picture_has_a_name(page):
    reader = Reader(page)
    assert reader.levels[0] == 1
    assert reader.levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(reader.levels))
    assert reader.unnamed == []


def test_the_page_has_every_section(page):
    for text in (
        "Ranking", "After each step", "Forgetting per class", "Where old classes go", "Accuracy against cost",
        "Pictures", "Synthetic images", "Task i after task j", "Accuracy against size", "Masks", "agreement",
        "Settings and provenance", "Reported and measured", "harmonic", "after step 0", "changed", "training.lr",
    ):  # fmt: skip
        assert text.lower() in page.lower(), text


def test_the_same_runs_give_the_same_page(report_runs, tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(report_runs / "cache"))
    assert main(["report", str(report_runs / "results"), "-o", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_bytes() == (report_runs / "report.html").read_bytes()


def test_names_from_files_stay_text(tmp_path):
    evil = '<script>alert("x")</script>$\\frac{'
    committed(
        tmp_path, 0, strategy=evil, benchmark=evil, class_names=["background", *[f"{evil}{k}" for k in range(20)]]
    )
    text, _ = render(find_records(tmp_path)[0], source=evil)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    Reader(text)


def test_fifty_runs_with_large_pictures_stay_below_three_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    photograph = rng.integers(0, 256, (160, 960, 3), np.uint8)
    noise = rng.integers(0, 21, (160, 960), np.uint8)
    for k in range(50):
        own = {"strategy_values": {"distillation": float(k)}}
        folder = committed(tmp_path, k % 44, seed=0, hash=f"{k:08x}", change=own)
        pictures = folder / "pictures"
        pictures.mkdir()
        Image.fromarray(photograph).save(pictures / "images.png", compress_level=1)
        for shift, name in enumerate(("truth", *(f"step{s}" for s in range(6)))):
            labels = Image.fromarray(np.roll(noise, 10 * k + shift, 1), mode="P")
            labels.putpalette(bytes(range(256)) * 3)
            labels.save(pictures / f"{name}.png", compress_level=1)
    records, faults = find_records(tmp_path)
    assert (len(records), faults) == (50, [])
    text, notes = render(records, source="results")
    assert len(text.encode()) < 3_000_000
    assert any("pictures left out" in note for note in notes)
    assert "after step 5" in text


# ---- bad input


def refused(capsys, *words):
    """The one line that a refusal is."""
    capsys.readouterr()
    assert main(["report", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    output = tmp_path / "report.html"
    assert "does not exist" in refused(capsys, tmp_path / "absent", "-o", output)
    (tmp_path / "empty").mkdir()
    assert "it holds no result.json" in refused(capsys, tmp_path / "empty", "-o", output)
    (tmp_path / "empty" / "result.json").write_text("{}")
    assert "it has no 'schema'" in refused(capsys, tmp_path / "empty", "-o", output)
    assert not output.exists()


def test_records_of_other_schemas_are_left_out_by_name_and_the_rest_is_shown(tmp_path, capsys):
    committed(tmp_path, 0)
    newer = committed(tmp_path, 1)
    edited(newer / "result.json", schema=2)
    older = committed(tmp_path, 2)
    edited(older / "result.json", schema=0)
    broken = committed(tmp_path, 3)
    (broken / "result.json").write_text("{")
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 0
    said = capsys.readouterr().err
    page = (tmp_path / "r.html").read_text()
    for folder, reason in ((newer, "schema 2"), (older, "schema 0"), (broken, "is not JSON")):
        assert re.search(f"left out: .*{re.escape(str(folder))}.*{reason}", said)
        assert re.search(f"<li>{re.escape(str(folder))}.*{reason}", page)
    assert "1 run of 1 set-up" in page


def test_a_corrupt_picture_is_named_and_the_rest_is_shown(report_runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path))
    shutil.copytree(report_runs / "results", tmp_path / "results")
    folder = next((tmp_path / "results").glob("voc*/finetune/*/s0-*"))
    good = (folder / "pictures" / "step1.png").read_bytes()
    (folder / "pictures" / "step1.png").write_bytes(good[: len(good) // 2])
    (folder / "pictures" / "images.png").write_text("no picture")
    assert main(["report", str(tmp_path / "results"), "-o", str(tmp_path / "r.html")]) == 0
    said = capsys.readouterr().err
    page = (tmp_path / "r.html").read_text()
    assert f"{folder / 'pictures' / 'step1.png'} cannot be read" in said
    assert f"{folder / 'pictures' / 'images.png'} is no picture" in page
    assert "after step 0" in page


def test_damaged_masks_are_named_and_the_rest_is_shown(report_runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path))
    shutil.copytree(report_runs / "results", tmp_path / "results")
    mask = next((tmp_path / "results").rglob("masks/*.safetensors"))
    mask.write_bytes(mask.read_bytes()[:50])
    assert main(["report", str(tmp_path / "results"), "-o", str(tmp_path / "r.html")]) == 0
    assert str(mask) in capsys.readouterr().err
    assert "Task i after task j" in (tmp_path / "r.html").read_text()


def test_a_destination_that_cannot_be_written_is_one_line(tmp_path, capsys, monkeypatch):
    committed(tmp_path / "results", 0)
    assert "it is a folder" in refused(capsys, tmp_path / "results", "-o", tmp_path)
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(capsys, tmp_path / "results", "-o", tmp_path / "file" / "r.html")

    def forbid(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "r.html").write_text("before")
    monkeypatch.setattr("tempfile.mkstemp", forbid)
    assert "Permission denied" in refused(capsys, tmp_path / "results", "-o", tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == "before"


def test_a_picture_that_may_not_be_looked_at_is_named(tmp_path, monkeypatch):
    def forbid(*_args, **_kwargs):  # root may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.is_file", forbid)
    said = []
    assert read_picture(tmp_path / "a.png", said.append) is None
    assert said == [f"{tmp_path}/a.png cannot be read: [Errno 13] Permission denied"]


def test_a_picture_too_large_to_open_is_named(tmp_path):
    Image.new("1", (6000, 6000)).save(tmp_path / "huge.png")
    said = []
    assert read_picture(tmp_path / "huge.png", said.append) is None
    assert "6000 x 6000 pixels are too many" in said[0]


def test_a_run_that_has_no_step_yet_and_one_that_stopped_are_shown(tmp_path):
    committed(tmp_path, 0)
    folder = committed(tmp_path, 1, status="running")
    content = json.loads((folder / "result.json").read_text())
    edited(folder / "result.json", steps=content["steps"][:2])
    begun = committed(tmp_path, 2, status="running")
    edited(begun / "result.json", steps=[])
    text, _ = render(find_records(tmp_path)[0], source="r")
    assert "2 of 6 steps" in text
    assert "0 of 6 steps" in text
