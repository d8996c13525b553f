"""First steps of a user's methods: shown to be plain by `check`, then shared, until what they reach changes."""

import pytest

from densecl.check.plain import prove
from densecl.cli import main
from densecl.records.record import find_records
from densecl.runner.methods import parse_method
from densecl.runner.proof import advice
from densecl.runner.share import source_hash
from densecl.settings.catalogue import load_class
from densecl.settings.reached import reached
from tiny_runs import run_words

MINE = '''
import torch
from densecl import Strategy


def scale(value):
    return 1.0 * value


def unused():
    return 1


class Mine(Strategy):
    """A method."""

    weight: float = 2.0
    sharpness: float = 1.0

    def pixel_loss(self, logits, batch):
        return scale(super().pixel_loss(logits, batch))

    def regulariser(self, output, batch, teacher_output):
        return self.weight * self.distance(output.logits, teacher_output.logits)

    def distance(self, logits, old):
        return (logits[:, : old.shape[1]] - old).square().mean()
'''


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))


def written(folder, *changes, text=MINE, name="mine.py") -> str:
    """Write the method's file with parts replaced; the name of its class."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return f"{folder}/{name}:Mine"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (("A method.", "Another text."), True),
        (("self.weight *", "3 * self.weight *"), True),
        ((".square()", ".abs()"), True),
        (("return 1\n", "return 2\n"), True),
        (("1.0 * value", "2.0 * value"), False),
        (("return scale(super()", "return scale(2 * super()"), False),
        (("weight: float = 2.0", "weight: float = 4.0"), True),  # of a value that the first step does not look at
        (("return scale(", "self.distance(logits, logits)\n        return scale("), False),
    ],
)
def test_only_what_the_first_step_reaches_decides(tmp_path, change, same):
    plain, changed = (load_class(written(tmp_path / name, *c)) for name, c in (("a", ()), ("b", (change,))))
    assert (reached(plain).digest == reached(changed).digest) is same


def test_a_hook_that_a_later_one_calls_too_is_reached(tmp_path):
    called = ("return self.weight *", "self.pixel_loss(output.logits, batch)\n        return self.weight *")
    plain = load_class(written(tmp_path / "a", called))
    changed = load_class(written(tmp_path / "b", called, ("return scale(super()", "return scale(2 * super()")))
    assert reached(plain).digest != reached(changed).digest


def test_code_that_looks_names_up_by_text_counts_as_a_whole(tmp_path):
    dynamic = ("return scale(", "getattr(self, 'dist' + 'ance')\n        return scale(")
    one, two = (load_class(written(tmp_path / n, dynamic, *c)) for n, c in (("a", ()), ("b", ((".square", ".abs"),))))
    assert reached(one).names is None
    assert reached(one).digest != reached(two).digest


NOTE = """    def before_step(self, experience):
        self.seen = 1 if self.step == 0 else self.seen

    def distance"""


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("changes", "plain"),
    [
        ([], True),
        ([("1.0 * value", "1.5 * value")], False),
        ([("    def distance", NOTE), ("self.weight *", "self.seen *")], False),
        ([("return scale(", "return scale(1 if self.epoch < 9 else 2) * (")], False),
    ],
    ids=["plain", "another loss", "a note of step 0", "epochs"],
)
def test_a_first_step_is_plain_where_loading_it_comes_to_the_same(tmp_path, changes, plain):
    assert prove(written(tmp_path, *changes)) == (["Mine"] if plain else [])


@pytest.mark.usefixtures("one_thread")
def test_a_proved_method_shares_its_first_step_with_built_in_ones(voc, tmp_path, monkeypatch, capsys):
    def run(strategy):
        assert main(run_words(voc, tmp_path / "out", strategy=strategy)) == 0
        found = [f.record for f in find_records(tmp_path / "out")[0]]
        return {record.hash: record.steps[0].shared for record in found}, capsys.readouterr().err

    mine = written(tmp_path / "one")
    assert "has not shown that the first step of Mine is plain" in advice(parse_method(mine), source_hash())
    monkeypatch.setattr("densecl.check.check.check_method", lambda *_arguments: [])  # tried in tests of its own
    assert main(["check", mine]) == 0
    assert "the first step of Mine is plain: runs share it" in capsys.readouterr().out
    assert advice(parse_method(mine), source_hash()) == ""
    before, err = run("finetune")
    assert "not shared" not in err
    # another file, so that it is imported anew: an edit of what comes later needs no other proof
    after, err = run(written(tmp_path / "two", (".square()", ".abs()")) + "(weight=3)")
    assert "not shared" not in err
    assert [shared for key, shared in after.items() if key not in before] == [True]
    written(tmp_path / "one", ("1.0 * value", "value * 1.0"))
    load_class.__globals__["_module_of_file"].cache_clear()
    told = advice(parse_method(mine), source_hash())
    assert "Mine's code for the first step has changed since" in told
    assert f"`densecl check '{mine}'` looks again" in told
