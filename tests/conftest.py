"""Fixtures of the tests that go through the command line.

What takes long to import is imported where it is used: the process that hands the tests out needs none of it.
"""

import gc
import os
import re
import shutil
from contextlib import contextmanager, suppress

import pytest
from xdist.scheduler import LoadScopeScheduling

MEMORY, ROOM = "/dev/shm", 2**30


class Together(LoadScopeScheduling):
    """Sends tests that share long work to one worker, which does it once: those of a method, those of the report.

    (The marks of `--dist loadgroup` say the same, but pytest 9.2 does not let them into the names that are sent.)
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/report/"):
            return "report"
        found = re.search(r"test_conformance\.py::(\w+)\[(.*)-(classes|tasks)", nodeid)
        if found is None:
            return nodeid
        test, method, kind = found.groups()
        return f"two processes, {kind}" if test.startswith("test_two_processes") else f"{method}, {kind}"


def pytest_configure():
    """Keep temporary files in memory where there is room: some disks take milliseconds to delete a file."""
    with suppress(OSError):
        if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)


def pytest_collection():
    """Let hypothesis be patient: a busy machine draws slowly."""
    from hypothesis import HealthCheck, settings

    settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")


def pytest_collection_finish():
    """Leave what the imports made out of the passes of garbage collection, which took a twelfth of the time."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return Together(config, log)


@pytest.fixture(scope="session", autouse=True)
def _unsynced():
    """No test cuts the power, and each run would wait for the disk a hundred times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@contextmanager
def _one_thread():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def one_thread():
    """Tiny tensors are slower with more, and equal bits need an equal number."""
    with _one_thread():
        yield


@pytest.fixture
def voc(tmp_path, monkeypatch):
    """A folder with a tiny VOC tree, and caches of its own."""
    from tiny_runs import tiny_voc

    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DENSECL_DATA", raising=False)
    monkeypatch.delenv("DENSECL_CATALOGUE", raising=False)
    tiny_voc(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with a tree (`data`) and a finished run of mib on it (`results`). Change nothing in it."""
    from densecl.cli import main
    from tiny_runs import run_words, tiny_voc

    root = tmp_path_factory.mktemp("finished")
    with _one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DENSECL_CACHE", str(root / "cache"))
        tiny_voc(root / "data")
        assert main(run_words(root / "data", root / "results", "--quiet")) == 0
    return root


@pytest.fixture
def run_copy(finished, tmp_path, monkeypatch):
    """A copy of the finished run's folder, with its data and cache at hand."""
    monkeypatch.setenv("DENSECL_CACHE", str(finished / "cache"))
    shutil.copytree(finished / "results", tmp_path / "results")
    return next((tmp_path / "results").rglob("result.json")).parent


@pytest.fixture(scope="session")
def report_runs(tmp_path_factory):
    """A folder with tiny runs of every kind (`results`), their caches and their report. Change nothing in it."""
    from data_trees import few_drawn
    from report_runs import make_runs

    root = tmp_path_factory.mktemp("report")
    with _one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DENSECL_CACHE", str(root / "cache"))
        few_drawn(patch, 12, 4, 6)
        make_runs(root)
    return root


@pytest.fixture
def camvid(tmp_path, monkeypatch):
    """A folder with a tiny CamVid tree, and caches of its own."""
    from data_trees import camvid_tree

    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    camvid_tree(tmp_path / "camvid")
    return tmp_path / "camvid"
