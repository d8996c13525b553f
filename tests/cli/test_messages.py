"""Damaged files of every kind end in one line in our own words, which names the file and no exception of Python."""

import pytest

from broken_targets import TARGETS
from fuzz_files import Tally, search

SECONDS, INPUTS = 0.5, 100  # for each kind, what is reached first; `make fuzz` takes longer
TURNS = 10  # at most, until damage is noticed
KINDS = [name for name in TARGETS if name != "record_in_report"]  # whose figures take seconds
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the files of all kinds, some of which are of one finished run."""
    return tmp_path_factory.mktemp("broken")


@pytest.mark.filterwarnings("ignore")  # of PIL and pycocotools, about the damage
@pytest.mark.parametrize("name", KINDS)
def test_damage_is_told_in_one_line_that_names_the_file(name, place, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(place / "cache"))
    (place / name).mkdir()
    aim, tally = TARGETS[name](place / name), Tally()
    for seed in range(TURNS):
        search(aim, tally, SECONDS, seed, inputs=INPUTS)
        if tally.refused or not aim.refuses:
            break
    assert not tally.faults
    assert tally.refused or not aim.refuses
