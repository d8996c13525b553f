"""A run whose synthetic images the cache has lost ends with the same bits: its folder has what they are made from."""

import errno
import json
import shutil

import pytest
import torch

from densecl.cli import main
from densecl.files import write_error
from densecl.inversion import bank as banks
from densecl.records.record import read_record
from kill_runs import finished, same
from tiny_runs import flags, run_words

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = "images_per_class=2,iterations=3,batch=20"


def words(voc, output, options="", benchmark="voc10-5"):
    more = flags("training.later.epochs=2")
    return run_words(voc, output, *more, benchmark=benchmark, strategy=f"mib+deepinversion({QUICK}{options})")


def stop_after(folder, steps):
    """Leave a finished run as if it was killed when so many steps were done."""
    path = folder / "result.json"
    record = read_record(path)
    record.model_copy(update={"steps": record.steps[:steps], "status": "interrupted"}).write(path)
    for step in range(steps, len(record.steps)):
        (folder / "weights" / f"step{step}.safetensors").unlink()
        (folder / "checkpoints" / f"step{step}-done.ckpt").unlink()


@pytest.mark.parametrize("options", ["", ",student=network,competition=1", ",later=add"])
def test_a_lost_bank_is_made_again_from_the_kept_network(voc, tmp_path, capsys, options):
    assert main(words(voc, tmp_path / "out", options)) == 0
    whole = finished(tmp_path / "out")
    folder = next((tmp_path / "out").rglob("result.json")).parent
    stop_after(folder, 2)
    shutil.rmtree(tmp_path / "cache" / "banks")
    assert main(words(voc, tmp_path / "out", options)) == 0
    assert "synthesised again" in capsys.readouterr().err
    assert same(finished(tmp_path / "out"), whole)


def test_a_bank_without_its_description_keeps_its_images(voc, tmp_path, capsys, monkeypatch):
    assert main(words(voc, tmp_path / "out")) == 0
    whole = finished(tmp_path / "out")
    stop_after(next((tmp_path / "out").rglob("result.json")).parent, 2)
    for path in (tmp_path / "cache" / "banks").rglob(banks.FILE_NAME):
        path.write_text("{")
    monkeypatch.setattr(banks, "synthesise", None)  # nothing is made
    assert main(words(voc, tmp_path / "out")) == 0
    assert "images beside it are whole" in capsys.readouterr().err
    assert same(finished(tmp_path / "out"), whole)


def test_a_record_says_that_images_could_not_be_made_again(voc, tmp_path, capsys, monkeypatch):
    assert main(words(voc, tmp_path / "out", benchmark="voc15-5s")) == 0
    folder = next((tmp_path / "out").rglob("result.json")).parent
    stop_after(folder, 3)
    shutil.rmtree(tmp_path / "cache" / "banks")
    monkeypatch.setattr(torch, "__version__", "0.0.0")  # other algorithms: the bits may be others
    key, made = banks.bank_key, banks.synthesise

    def others(*arguments, **keywords):
        found = made(*arguments, **keywords)
        return found._replace(images=-found.images)

    monkeypatch.setattr(banks, "synthesise", others)
    assert main(words(voc, tmp_path / "out", benchmark="voc15-5s")) == 0
    assert key is banks.bank_key
    assert "the images of step 1 are others from step 3 on" in capsys.readouterr().err
    steps = json.loads((folder / "result.json").read_text())["steps"]
    noted = [step["notes"]["deepinversion"]["banks"][0].get("replaced") for step in steps[1:]]
    assert noted == [None, None, [3], [3], [3]]


def test_a_full_cache_does_not_end_a_run(voc, tmp_path, capsys, monkeypatch):
    def full(path, *_):
        raise write_error(path, OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(banks, "write_gallery", full)
    assert main(words(voc, tmp_path / "out")) == 0
    assert "no space left on the disk" in capsys.readouterr().err
    whole = finished(tmp_path / "out")
    monkeypatch.setattr(banks, "save_tensors", lambda tensors, path, metadata: full(path))
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "other"))
    assert main(words(voc, tmp_path / "again")) == 0
    assert same(finished(tmp_path / "again"), whole)
