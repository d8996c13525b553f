"""DeepInversion over six steps of real files, killed within the synthesis; skipped where the data is absent."""

import os
from pathlib import Path

import pytest

from densecl.cli import main
from densecl.inversion import bank
from densecl.records.record import read_record
from densecl.tensors import read_tensors
from tiny_runs import BACKBONE, flags

SHARED = Path(os.environ.get("DENSECL_SHARED") or Path(__file__).parents[3] / "shared") / "data"
pytestmark = [
    pytest.mark.skipif(not (SHARED / "voc-mini").is_dir(), reason="no real data here"),
    pytest.mark.usefixtures("one_thread"),
]
TINY = ("training.iterations=2", "training.batch=4", "training.crop=32", "evaluation.size=32", "evaluation.batch=64")
METHOD = "mib+deepinversion(iterations=6,images_per_class=2,jitter=2,later=add)"


class Killed(BaseException):
    pass


def words(output):
    found = ["run", "--benchmark", "voc15-5s", "--strategy", METHOD, "--data", str(SHARED / "voc-mini")]
    found += ["--backbone", BACKBONE, "--output", str(output), "--device", "cpu", "--quiet"]
    return [*found, *flags(*TINY)]


def test_all_steps_of_voc_killed_and_resumed_within_the_synthesis(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "whole-cache"))
    assert main(words(tmp_path / "whole")) == 0
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cut-cache"))
    made, batches = bank.synthesise, []

    def killed(*arguments, **keywords):
        batches.append(1)
        if len(batches) == 2:
            raise Killed
        return made(*arguments, **keywords)

    monkeypatch.setattr(bank, "synthesise", killed)
    with pytest.raises(Killed):
        main(words(tmp_path / "cut"))
    assert len(list((tmp_path / "cut-cache").rglob("batch-*.safetensors"))) == 1
    assert main(words(tmp_path / "cut")) == 0
    assert len(batches) == 2 + 1 + 4  # the killed batch again, then one for each later class
    capsys.readouterr()
    folders = [next((tmp_path / name).rglob("result.json")).parent for name in ("whole", "cut")]
    records = [read_record(folder / "result.json") for folder in folders]
    assert [record.status for record in records] == ["finished"] * 2
    assert len(records[0].steps) == 6
    weights = [read_tensors(folder / "weights" / "step5.safetensors")[0] for folder in folders]
    assert all((value == weights[1][key]).all() for key, value in weights[0].items())
    banks = [record.steps[-1].notes["deepinversion"]["banks"] for record in records]
    assert [each["hash"] for each in banks[0]] == [each["hash"] for each in banks[1]]
    assert [each["labels"] for each in banks[0]] == [list(range(1, 16)), [16], [17], [18], [19]]
    assert main(["bank", str(folders[1]), "--judge", str(folders[1])]) == 0  # judged by itself
    out = capsys.readouterr().out
    assert "made before step 5, of the classes 19" in out
    assert "agreement: pixels            1.000" in out
    assert main(["bank", str(folders[0])]) == 0
    assert main(["bank", str(tmp_path)]) == 2
