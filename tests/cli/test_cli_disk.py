"""Disks that are full and folders that are not one's own: one line that names them, and nothing lost."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import filelock
import pytest

from densecl import tensors
from densecl.cli import main
from densecl.files import write_text
from tiny_runs import refused, refused_run, run_words

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")


def test_not_enough_disk(capsys, voc, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(2**30, 2**30, 1000))
    refused_run(capsys, voc, ["not enough disk", voc.parent / "results", "MiB needed, 0 MiB free"])


def test_a_disk_that_fills_up_on_the_way(capsys, voc, monkeypatch):
    def full(*_arguments, **_options):
        # how safetensors tells it
        raise tensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensors, "save_file", full)
    output = voc.parent / "results"
    refused(capsys, run_words(voc, output, "--quiet"), "no space left on the disk", output)
    assert not [path for path in output.rglob("*") if ".tmp" in path.name]


@pytest.mark.skipif(not FULL.is_char_device(), reason="no device that is always full")
def test_a_screen_that_is_a_file_on_a_full_disk():
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "densecl", "list"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert result.returncode == 2
    assert result.stderr == "densecl: no space left on the disk. free some space\n"


def test_a_file_is_synced_before_it_has_its_name_and_its_folder_after_that(tmp_path, monkeypatch):
    synced, path = [], tmp_path / "folder" / "file"
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append((os.fstat(handle).st_ino, path.exists())))
    write_text(path, "content")
    assert synced == [(path.stat().st_ino, False), (path.parent.stat().st_ino, True)]


def test_an_output_folder_that_is_a_file(capsys, voc, tmp_path):
    (tmp_path / "file").write_text("")
    refused(capsys, run_words(voc, tmp_path / "file"), "cannot write", tmp_path / "file")
    assert (tmp_path / "file").read_text() == ""


def test_an_output_folder_that_cannot_be_written(capsys, voc, tmp_path, monkeypatch):
    made = Path.mkdir

    def mkdir(self, *arguments, **options):
        if tmp_path / "results" in (self, *self.parents):
            raise PermissionError(13, "Permission denied")
        made(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    refused_run(capsys, voc, ["cannot write", tmp_path / "results", "Permission denied"])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_an_output_folder_that_is_read_only(capsys, voc, tmp_path):
    (tmp_path / "results").mkdir(mode=0o500)
    refused_run(capsys, voc, ["cannot write", tmp_path / "results"])


@pytest.mark.parametrize("words", [["evaluate"], ["inspect"], ["table"], ["report"], ["bank"], ["run"]])
def test_names_that_are_too_long_for_the_file_system(capsys, voc, tmp_path, words):
    path = tmp_path / (300 * "x")
    words = run_words(voc, path) if words == ["run"] else [*words, path]
    refused(capsys, words, path, "File name too long", "shorter names only")


def failing(number, ending):
    """Let the system refuse whatever is done to a file of that ending."""

    def unlink(self, *arguments, **options):
        if self.name.endswith(ending):
            raise OSError(number, os.strerror(number), str(self))
        return REMOVED(self, *arguments, **options)

    return unlink


REMOVED = Path.unlink


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE])
def test_an_old_checkpoint_that_cannot_be_removed(capsys, voc, tmp_path, monkeypatch, number):
    monkeypatch.setattr(Path, "unlink", failing(number, ".ckpt"))
    line = refused(capsys, run_words(voc, tmp_path / "r", "--quiet"), tmp_path / "r", ".ckpt", os.strerror(number))
    assert "choose another --output / DENSECL_CACHE" in line


@pytest.mark.parametrize("place", [".shared", "cache"])
def test_a_folder_of_a_colleague_is_named(capsys, voc, tmp_path, monkeypatch, place):
    taken = tempfile.mkstemp

    def mkstemp(*arguments, **options):
        if place in Path(options["dir"]).parts:
            raise PermissionError(13, "Permission denied", str(options["dir"]))
        return taken(*arguments, **options)

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    words = run_words(voc, tmp_path / "r", "--quiet", strategy="finetune")
    refused(capsys, words, f"{place}/", "Permission denied", "DENSECL_CACHE")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NotImplementedError("FileLock is not supported"), "its file system has no locks"),
        (PermissionError(13, "Permission denied", "/r/.lock"), "cannot write /r/.lock: Permission denied"),
    ],
)
def test_a_lock_that_cannot_be_taken_says_the_true_cause(capsys, voc, tmp_path, monkeypatch, error, said):
    def acquire(self, *_arguments, **_options):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    refused(capsys, run_words(voc, tmp_path / "r", "--quiet"), said, "choose another --output")


def test_a_user_without_a_home_folder(capsys, voc, monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.delenv("DENSECL_CACHE")
    refused(
        capsys, run_words(voc, voc.parent / "r", "--quiet"), "no such home folder", "DENSECL_CACHE and DENSECL_DATA"
    )
    refused(capsys, run_words(Path("~/data"), voc.parent / "r"), "~/data", "no such home folder")


def test_a_run_is_evaluated_from_another_folder_than_it_was_started_in(capsys, voc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(run_words(voc.relative_to(tmp_path), Path("r"), "--quiet")) == 0
    folder = next((tmp_path / "r").rglob("result.json")).parent
    monkeypatch.chdir("/")
    assert main(["evaluate", str(folder)]) == 0


def test_a_run_folder_that_another_process_holds(capsys, run_copy, finished):
    holder = f"import filelock; a = filelock.FileLock({str(run_copy / '.lock')!r}); a.acquire(); print(1, flush=True)"
    holder += "; input()"
    before = (run_copy / "result.json").read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "1\n"
        words = run_words(finished / "data", run_copy.parents[3], "--fresh", "--quiet")
        refused(capsys, words, run_copy, "in use by another process")
        other.communicate("\n")
    assert (run_copy / "result.json").read_bytes() == before
    assert len(list((run_copy / "weights").iterdir())) == 2
