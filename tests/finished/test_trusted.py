"""A run folder executes no code: a class outside the catalogue is imported only if the user names it again."""

import json
import shutil

import pytest

from densecl.cli import main
from densecl.errors import RecordError, SettingError
from densecl.finished.judge import kept_network
from densecl.finished.trusted import read_run, trusted_settings
from tiny_runs import refused, run_words

pytestmark = pytest.mark.usefixtures("one_thread")
MINE = """from pathlib import Path
from densecl import Strategy
Path({mark!r}).touch()
class Mine(Strategy):
    weight: float = 1.0
"""


@pytest.fixture
def mark(tmp_path):
    """The file that evil code makes when it is imported."""
    (tmp_path / "evil.py").write_text(MINE.format(mark=str(tmp_path / "mark")))
    return tmp_path / "mark"


def set_in_record(folder, change):
    path = folder / "result.json"
    record = json.loads(path.read_text())
    change(record["settings"])
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("form", ["file", "module"])
@pytest.mark.parametrize("key", ["strategy", "plugins", "backbone", "data", "task", "student"])
def test_code_that_a_record_names_is_not_imported(run_copy, mark, capsys, monkeypatch, key, form):
    monkeypatch.syspath_prepend(mark.parent)
    code = f"{mark.parent / 'evil.py'}:Mine" if form == "file" else "evil:Mine"
    change = {
        "strategy": lambda s: s.update(strategy=code),
        "plugins": lambda s: s["plugins"].update({code: {}}),
        "backbone": lambda s: s.update(backbone=code),
        "data": lambda s: s["data"].update(name=f"{code}(size=3)"),
        "task": lambda s: s["stream"].update(tasks=[{"name": "a", "kind": code, "data": "shapes"}]),
        "student": lambda s: s["plugins"].update({"deepinversion": {"student": code}}),
    }[key]
    set_in_record(run_copy, change)
    picture = next((run_copy / "pictures").glob("*.png"))
    for words in (["evaluate", run_copy], ["predict", run_copy, picture, "-o", mark.parent / "o"]):
        if key == "task":  # such a class comes from a recipe of the user's
            refused(capsys, words, run_copy, "'settings.stream.tasks.0.kind' cannot be")
        else:
            line = refused(capsys, words, run_copy, code, "code that a record names is not run")
            option = {"backbone": "--backbone", "data": "--data-set"}.get(key, "--strategy")
            assert line.endswith(f"name it: {option} {code}\n")
    assert main(["inspect", str(run_copy)]) == 0
    assert main(["bank", str(run_copy)]) == 2
    assert not mark.exists()


def test_the_network_of_a_judge_is_not_built_by_code_that_its_record_names(run_copy, mark, capsys):
    code = f"{mark.parent / 'evil.py'}:Mine"
    bank = {"key": "ab", "step": 1, "labels": [1], "hash": "0"}
    path = run_copy / "result.json"
    record = json.loads(path.read_text())
    record["settings"]["backbone"] = code
    record["steps"][-1]["notes"] = {"deepinversion": {"banks": [bank]}}
    path.write_text(json.dumps(record))
    refused(capsys, ["bank", run_copy, "--judge", run_copy], code, "is not run")
    assert not mark.exists()


@pytest.fixture
def own_run(voc, tmp_path, mark, capsys):
    """A finished run with a class of the user's own, and its file."""
    words = run_words(voc, tmp_path / "own", "--quiet", strategy=f"{tmp_path / 'evil.py'}:Mine(weight=2)")
    assert main(words) == 0
    capsys.readouterr()
    mark.unlink()
    return next((tmp_path / "own").rglob("result.json")).parent, tmp_path / "evil.py"


def test_a_class_that_is_named_again_is_used_with_the_recorded_values(own_run, tmp_path, capsys):
    folder, file = own_run
    recorded = read_run(folder)
    refused(capsys, ["evaluate", folder], file, "--strategy")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copy(file, moved / "method.py")
    assert main(["evaluate", str(folder), "--strategy", f"{moved / 'method.py'}:Mine", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored["confusion"] == recorded.steps[-1].evaluations[0].confusion
    tree = trusted_settings(recorded, folder, f"{moved / 'method.py'}:Mine")
    assert tree["strategy"] == f"{moved / 'method.py'}:Mine"
    assert tree["strategy_values"] == {"weight": 2.0}
    picture = next((folder / "pictures").glob("*.png"))
    words = ["predict", str(folder), str(picture), "-o", str(tmp_path / "o"), "-s", f"{file}:Mine"]
    assert main(words) == 0


def test_a_class_whose_source_has_changed_is_refused(own_run, capsys):
    folder, file = own_run
    file.write_text(file.read_text() + "# changed\n")
    refused(capsys, ["evaluate", folder, "--strategy", f"{file}:Mine"], file, "is not the source")


OWN = """from densecl.data.sets.voc import VOC
from densecl.models.backbones.bisenet import BiSeNet
from densecl import Strategy
class Body(BiSeNet):
    pass
class Images(VOC):
    pass
class Method(Strategy):
    pass
"""


def test_a_backbone_and_a_data_set_of_ones_own_are_named_again_too(voc, tmp_path, capsys):
    file, other = tmp_path / "own.py", tmp_path / "copy.py"
    file.write_text(OWN)
    words = run_words(voc, tmp_path / "own", "--quiet", "--set", f"data.name={file}:Images", strategy=f"{file}:Method")
    words[words.index("--backbone") + 1] = words[words.index("--backbone") + 1].replace("bisenet", f"{file}:Body")
    assert main(words) == 0
    folder = next((tmp_path / "own").rglob("result.json")).parent
    shutil.copy(file, other)
    file.unlink()  # only the copy is there
    capsys.readouterr()
    recorded = [f"--strategy {file}:Method", f"--backbone {file}:Body", f"--data-set {file}:Images"]
    refused(capsys, ["evaluate", folder], *recorded)
    refused(capsys, ["evaluate", folder, "-s", f"{other}:Method"], " ".join(recorded[1:]))
    named = ["-s", f"{other}:Method", "--backbone", f"{other}:Body", "--data-set", f"{other}:Images"]
    assert main(["evaluate", str(folder), "--json", *named]) == 0
    expected = read_run(folder).steps[-1].evaluations[0].confusion
    assert json.loads(capsys.readouterr().out)["confusion"] == expected
    picture = next((folder / "pictures").glob("*.png"))
    assert main(["predict", str(folder), str(picture), "-q", "-o", str(tmp_path / "o"), *named]) == 0
    own = {"strategy": f"{other}:Method", "backbone": f"{other}:Body", "data_set": f"{other}:Images"}
    assert kept_network(folder, 1, **own)[0].n_outputs == 21
    refused(capsys, ["evaluate", folder, *named[:3], "unet", *named[4:]], f"--backbone {file}:Body")
    refused(capsys, ["evaluate", folder, *named[:5], f"{other}:Images(a=1)"], "has its own values")
    other.write_text(OWN + "# changed\n")
    refused(capsys, ["evaluate", folder, *named], other, "is not the source")


def test_a_strategy_that_the_run_did_not_use_is_refused(own_run, run_copy, mark, capsys):
    folder, file = own_run
    refused(capsys, ["evaluate", folder, "-s", "mib"], f"{file}:Mine")
    refused(capsys, ["evaluate", folder, "-s", f"{file}:Mine+ewc"], "was made with Mine")
    refused(capsys, ["evaluate", folder, "-s", f"{file}:Mine(weight=3)"], "has its own values")
    refused(capsys, ["evaluate", run_copy, "-s", "lwf"], "was made with mib")
    assert not mark.exists()


def test_names_of_the_catalogue_need_no_naming(run_copy):
    record = read_run(run_copy)
    assert trusted_settings(record, run_copy) == record.settings
    assert trusted_settings(record, run_copy, "mib") == record.settings
    with pytest.raises(SettingError, match="was made with mib"):
        trusted_settings(record, run_copy, "mib+replay")


def test_paths_and_devices_are_not_taken_for_code(run_copy):
    record = read_run(run_copy)
    settings = {**record.settings, "device": "cuda:0", "data": {**record.settings["data"], "root": "/a:b/c.py:d"}}
    record = record.model_copy(update={"settings": settings})
    assert trusted_settings(record, run_copy) == settings


def test_sources_that_are_no_table_are_ignored_and_a_folder_that_is_no_run_is_refused(run_copy, tmp_path):
    record = read_run(run_copy).model_copy(update={"environment": {"sources": 3}})
    assert trusted_settings(record, run_copy) == record.settings
    with pytest.raises(RecordError, match="is not a run"):
        read_run(tmp_path / "absent")
