"""Bundles that people send: how they are made, and what the check finds in them."""

import hashlib
import json
import shutil
import warnings
import zipfile

import pytest

from densecl.cli import main
from densecl.records import bundle
from densecl.records.community import record_faults
from densecl.records.record import read_record
from report_runs import COMMITTED, committed, edited

WHO = ("--author", "A. Author")


@pytest.fixture
def runs(tmp_path):
    """Two finished runs, one with pictures."""
    places = [committed(tmp_path / "runs", index) for index in (0, 5)]
    (places[0] / "pictures").mkdir()
    source = next(COMMITTED.rglob("pictures/truth.png"))
    for name in ("truth.png", "step0.png"):
        shutil.copy(source, places[0] / "pictures" / name)
    (places[0] / "pictures" / "notes.txt").write_text("not sent")
    return places


@pytest.fixture
def made(runs, tmp_path):
    """A bundle as a folder."""
    assert main(["submit", *map(str, runs), "-o", str(tmp_path / "mine"), *WHO]) == 0
    return tmp_path / "mine"


@pytest.fixture
def community(tmp_path):
    folder = tmp_path / "results" / "community"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("how")
    (folder / "index.json").write_text("{}")
    return folder


def refused(capsys, *words):
    """The one line of a refusal."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def faults(capsys, *words):
    """The lines that the check prints, one a fault."""
    capsys.readouterr()
    assert main(["check-results", *map(str, words)]) == 2
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert all(line.startswith("✗ ") for line in lines)
    assert captured.err.splitlines()[-1].startswith(f"{len(lines)} fault")
    return lines


def check(*words):
    return main(["check-results", *map(str, words)])


def manifest(folder, **values):
    """Change the manifest of a bundle."""
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def resealed(folder):
    """The manifest as somebody would make it who changes files on purpose."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "bundle.json"]
    digests = {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    manifest(folder, files=digests)


def records(folder):
    return sorted(folder.rglob("result.json"))


# ---- making


def test_a_bundle_has_records_and_pictures_alone_in_folders_that_the_records_name(made, runs):
    content = json.loads((made / "bundle.json").read_text())
    record = read_record(runs[0] / "result.json")
    place = f"shapes15-5s/{record.strategy}/bisenet-mini/s{record.seed}-{record.hash}"
    assert f"{place}/result.json" in content["files"]
    assert {name.rpartition("/")[2] for name in content["files"]} == {"result.json", "truth.png", "step0.png"}
    for name, digest in content["files"].items():
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == digest
    assert (made / place / "result.json").read_bytes() == (runs[0] / "result.json").read_bytes()
    assert content["author"] == "A. Author"
    assert check(made) == 0


def test_a_zip_holds_the_same_and_equal_runs_give_equal_files(made, runs, tmp_path):
    for name in ("a.zip", "b.zip"):
        assert main(["submit", str(runs[0].parent), "-o", str(tmp_path / name), "--name", "mine", *WHO]) == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = set(archive.namelist())
        assert json.loads(archive.read("bundle.json")) == json.loads((made / "bundle.json").read_text())
    assert names == {str(p.relative_to(made)) for p in made.rglob("*") if p.is_file()}
    assert check(tmp_path / "a.zip") == 0


def test_what_cannot_be_sent_is_one_line_and_nothing_is_written(runs, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert "holds no result.json" in refused(capsys, "submit", tmp_path / "empty", "-o", out, *WHO)
    assert "does not exist" in refused(capsys, "submit", tmp_path / "absent", "-o", out, *WHO)
    assert "says who sends it" in refused(capsys, "submit", runs[0], "-o", out)
    assert "are one run" in refused(capsys, "submit", runs[0], runs[0], "-o", out, *WHO)
    assert "small letters" in refused(capsys, "submit", runs[0], "-o", tmp_path / "My Runs", *WHO)
    assert "200 characters" in refused(capsys, "submit", runs[0], "-o", out, "--author", "a" * 201)
    running = committed(tmp_path / "more", 3, status="running")
    assert "is not finished: its status is running" in refused(capsys, "submit", running, "-o", out, *WHO)
    held = committed(tmp_path / "more", 4, change={"data": {"validation": 0.2}})
    assert "held-out training images" in refused(capsys, "submit", held, "-o", out, *WHO)
    own = committed(tmp_path / "more", 6)
    edited(own / "result.json", environment={"torch": "2", "images": {"train": 1}, "sources": {"Mine": "ab"}})
    assert "say where its code is" in refused(capsys, "submit", own, "-o", out, *WHO)
    (running / "result.json").write_text("{")
    assert "is not JSON" in refused(capsys, "submit", running, "-o", out, *WHO)
    (tmp_path / "there").mkdir()
    assert "is there already" in refused(capsys, "submit", runs[0], "-o", tmp_path / "there", *WHO)
    assert not out.exists()
    assert not list(tmp_path.glob(".out*"))


def with_digest(folder):
    """A record as this version writes it."""
    record = read_record(folder / "result.json")
    record.write(folder / "result.json")


def test_a_record_changed_by_hand_is_sent_with_a_mark_and_without_it_found(runs, tmp_path, capsys):
    with_digest(runs[0])
    edited(runs[0] / "result.json", backbone="another")
    assert main(["submit", str(runs[0]), "-o", str(tmp_path / "changed"), *WHO]) == 0
    assert "was changed after the run" in capsys.readouterr().err
    assert check(tmp_path / "changed") == 0
    assert "was changed after the run, and says so" in capsys.readouterr().err
    manifest(tmp_path / "changed", edited=[])
    (line,) = faults(capsys, tmp_path / "changed")
    assert "was changed after the run, and the bundle does not say so" in line


# ---- one bundle


def test_each_fault_of_a_bundle_is_a_line(made, capsys):
    first, second = records(made)
    first.write_text(first.read_text() + " ")
    (made / "extra.py").write_text("print()")
    second.unlink()
    lines = faults(capsys, made)
    assert len(lines) == 3
    assert any(f"{first} is not the file that was sent" in line for line in lines)
    assert any("extra.py is not in bundle.json" in line for line in lines)
    assert any(f"{second} is missing" in line for line in lines)


def test_a_false_score_an_unfinished_run_and_a_wrong_place_are_found_whatever_the_hashes(made, capsys):
    first, second = records(made)
    content = json.loads(first.read_text())
    content["steps"][-1]["evaluations"][0]["metrics"]["miou"]["all"] += 0.1
    first.write_text(json.dumps(content))
    edited(second, status="interrupted", seed=7)
    resealed(made)
    lines = faults(capsys, made)
    assert any("the matrix gives" in line for line in lines)
    assert any("is not finished: its status is interrupted" in line for line in lines)
    assert any("belongs into shapes15-5s/" in line and "/s7-" in line for line in lines)


def test_one_run_under_two_names_is_found(made, capsys):
    first = records(made)[0]
    again = json.loads(first.read_text()) | {"seed": 9, "hash": "abcdef01"}
    place = first.parent.parent / "s9-abcdef01" / "result.json"
    place.parent.mkdir()
    place.write_text(json.dumps(again))
    resealed(made)
    (line,) = faults(capsys, made)
    assert "is the run of" in line


def test_foreign_records_must_declare_what_cannot_be_seen():
    record = read_record(sorted(COMMITTED.rglob("result.json"))[0])
    assert record_faults(record) == []
    from densecl.records.foreign import Declared, Foreign

    silent = record.model_copy(update={"foreign": Foreign(predictions="maps", digest="0")})
    assert [fault.rpartition("its ")[2] for fault in record_faults(silent)] == [
        "memory", "extra data", "checkpoint", "known classes", "told step",
    ]  # fmt: skip
    told = Declared(memory="none", extra_data="none", checkpoint="last", known_classes=False, told_step=False)
    assert (
        record_faults(silent.model_copy(update={"foreign": Foreign(predictions="maps", digest="0", declared=told)}))
        == []
    )


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json", "/etc/evil", "a/b/c/s0-ab/../../x/result.json", "a/b/c/s0-ab/run.py", "a\\b.json", "..",
        "a/b/c/s0-ab/pictures/x.exe",
    ],
)  # fmt: skip
def test_a_zip_with_other_paths_is_refused_and_nothing_is_written(name, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("bundle.json", "{}")
        archive.writestr(name, "x")
    before = sorted(tmp_path.rglob("*"))
    assert "which no bundle has" in refused(capsys, "check-results", tmp_path / "bad.zip")
    assert sorted(tmp_path.rglob("*")) == before


def test_damaged_and_huge_zips_are_one_line(made, runs, tmp_path, capsys, monkeypatch):
    path = tmp_path / "good.zip"
    assert main(["submit", *map(str, runs), "-o", str(path), *WHO]) == 0
    content = path.read_bytes()
    for number, broken in enumerate(
        (content[: len(content) // 2], b"no zip", content[:2000] + b"\0" * 50 + content[2050:])
    ):
        (tmp_path / f"{number}.zip").write_bytes(broken)
        assert "damaged or no bundle" in refused(capsys, "check-results", tmp_path / f"{number}.zip")
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("bundle.json", "{}")
        archive.writestr("bundle.json", "{}")
    assert "holds bundle.json twice" in refused(capsys, "check-results", tmp_path / "twice.zip")
    monkeypatch.setattr(bundle, "LARGEST", 1000)
    assert "is too large" in refused(capsys, "check-results", path)
    monkeypatch.setattr(bundle, "MOST", 2)
    assert "files, and a bundle has 2 at most" in refused(capsys, "check-results", path)


def test_a_manifest_that_is_none_is_one_line(made, capsys):
    for text, words in (
        ("{", "is not JSON"),
        ("[]", "bundle.json"),
        ('{"schema": 9}', "schema"),
        ("[" * 100_000, "JSON"),
    ):
        (made / "bundle.json").write_text(text)
        lines = faults(capsys, made)
        assert len(lines) == 1
        assert words in lines[0]
    (made / "bundle.json").unlink()
    assert any("it has no index" in line or "is no bundle" in line for line in faults(capsys, made))


def test_a_link_in_a_bundle_is_a_fault(made, tmp_path, capsys):
    first = records(made)[0]
    content = first.read_bytes()
    first.unlink()
    (tmp_path / "elsewhere.json").write_bytes(content)
    first.symlink_to(tmp_path / "elsewhere.json")
    assert any("is a link" in line for line in faults(capsys, made))


# ---- all bundles


def test_a_bundle_is_added_with_its_hash_and_the_folder_is_then_right(made, community, capsys):
    assert check(community, "--add", made) == 0
    index = json.loads((community / "index.json").read_text())
    assert index == {"mine": hashlib.sha256((community / "mine" / "bundle.json").read_bytes()).hexdigest()}
    assert sorted(p.relative_to(made) for p in made.rglob("*")) == sorted(
        p.relative_to(community / "mine") for p in (community / "mine").rglob("*")
    )
    assert check(community) == 0
    assert "has a bundle mine already" in refused(capsys, "check-results", community, "--add", made)


def test_a_faulty_or_doubled_bundle_is_not_added(made, community, runs, tmp_path, capsys):
    assert check(community, "--add", made) == 0
    before = {p: p.read_bytes() for p in community.rglob("*") if p.is_file()}
    assert main(["submit", str(runs[0]), "-o", str(tmp_path / "again.zip"), *WHO]) == 0
    (line,) = faults(capsys, community, "--add", tmp_path / "again.zip")
    assert "is the run of" in line
    records(made)[0].unlink()
    manifest(made, name="other")
    assert any("is missing" in line for line in faults(capsys, community, "--add", made))
    assert {p: p.read_bytes() for p in community.rglob("*") if p.is_file()} == before
    assert [p.name for p in community.parent.iterdir()] == ["community"]


def test_what_is_gone_changed_or_not_in_the_index_is_found(made, community, tmp_path, capsys):
    assert check(community, "--add", made) == 0
    shutil.copytree(community, tmp_path / "before")
    assert check(community, "--before", tmp_path / "before") == 0
    shutil.copytree(made, community / "other")
    (community / "stray.txt").write_text("")
    lines = faults(capsys, community)
    assert any("other is not in index.json" in line for line in lines)
    assert any("has the name mine, and its folder other" in line for line in lines)
    assert any("stray.txt is no bundle" in line for line in lines)
    shutil.rmtree(community / "other")
    (community / "stray.txt").unlink()
    manifest(community / "mine", note="another text")
    (line,) = faults(capsys, community)
    assert "is not the file that index.json has" in line
    shutil.rmtree(community / "mine")
    (line,) = faults(capsys, community)
    assert "mine is gone" in line
    (community / "index.json").write_text("{}")  # as somebody would who removes a bundle on purpose
    assert check(community) == 0
    (line,) = faults(capsys, community, "--before", tmp_path / "before")
    assert "has mine no more" in line
    assert "does not exist" in refused(capsys, "check-results", community, "--before", tmp_path / "absent")
    (community / "index.json").write_text("[]")
    assert "must hold names of bundles" in refused(capsys, "check-results", community)


def test_the_committed_folder_is_right():
    assert check(COMMITTED.parents[2] / "community") == 0
