"""Fixtures of the tests that go through the command line."""

import shutil

import pytest
import torch

from data_trees import few_drawn
from densecl.cli import main
from tiny_runs import run_words, tiny_voc


@pytest.fixture
def one_thread():
    """Tiny tensors are slower with more, and equal bits need an equal number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def voc(tmp_path, monkeypatch):
    """A folder with a tiny VOC tree, and caches of its own."""
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DENSECL_DATA", raising=False)
    monkeypatch.delenv("DENSECL_CATALOGUE", raising=False)
    tiny_voc(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with a tree (`data`) and a finished run of mib on it (`results`). Change nothing in it."""
    root = tmp_path_factory.mktemp("finished")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DENSECL_CACHE", str(root / "cache"))
        tiny_voc(root / "data")
        assert main(run_words(root / "data", root / "results", "--quiet")) == 0
    torch.set_num_threads(threads)
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
    from report_runs import make_runs

    root = tmp_path_factory.mktemp("report")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DENSECL_CACHE", str(root / "cache"))
        few_drawn(patch, 12, 4, 6)
        make_runs(root)
    torch.set_num_threads(threads)
    return root
