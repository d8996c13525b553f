"""Checkpoint files: read back whole, or refused by name; nothing in them is ever executed."""

import os
import pickle
import random

import pytest
import torch

from densecl.errors import RunError
from densecl.runner.checkpoint import Checkpoints, pack, unpack


def checkpoint(tmp_path):
    state = {"run": "mine", "step": 0, "epoch": 3, "network": {"w": torch.randn(50)}, "keys": [(1, 2)]}
    path = tmp_path / "step0-epoch000003.ckpt"
    path.write_bytes(pack(state))
    return path, state


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path, state = checkpoint(tmp_path)
    again = unpack(path, "mine")
    assert torch.equal(again["network"]["w"], state["network"]["w"])
    assert again["keys"] == state["keys"]


def test_200_corruptions_of_a_checkpoint_are_each_refused_by_name(tmp_path):
    path, _ = checkpoint(tmp_path)
    good, rng = path.read_bytes(), random.Random(0)
    for _ in range(200):
        bad = bytearray(good)
        kind = rng.randrange(4)
        if kind == 0:
            bad = bad[: rng.randrange(len(bad))]
        elif kind == 1:
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            start = rng.randrange(len(bad))
            bad[start : start + 64] = rng.randbytes(len(bad[start : start + 64]) or 1)
        else:
            bad += b"\0"
        if bytes(bad) == good:
            continue
        path.write_bytes(bad)
        with pytest.raises(RunError, match="step0-epoch000003"):
            unpack(path, "mine")


class Planted:
    def __reduce__(self):
        return (os.system, ("touch planted",))


def test_a_planted_checkpoint_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "step0-epoch000001.ckpt"
    path.write_bytes(pickle.dumps(Planted()))
    with pytest.raises(RunError, match="not a checkpoint of densecl"):
        unpack(path, "mine")
    path.write_bytes(pack({"run": "mine", "bad": Planted()}))
    with pytest.raises(RunError, match="not executed"):
        unpack(path, "mine")
    assert not (tmp_path / "planted").exists()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path, _ = checkpoint(tmp_path)
    with pytest.raises(RunError, match="another run"):
        unpack(path, "yours")


def test_the_epoch_before_a_torn_one_is_used(tmp_path):
    checkpoints = Checkpoints(tmp_path, "mine")
    for epoch in (1, 2):
        checkpoints.save_epoch({"step": 0, "epoch": epoch})
    checkpoints.close()
    last = checkpoints.epoch_path(0, 2)
    last.write_bytes(last.read_bytes()[:-5])
    said = []
    assert checkpoints.last_epoch(0, said.append)["epoch"] == 1
    assert "torn" in said[0]
    assert last.name in said[0]
