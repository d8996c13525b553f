"""`densecl table --layout field`: all methods and benchmarks of a folder in one table."""

import pytest

from densecl.cli import main
from densecl.records.published import Reported, Values
from densecl.tables.field import field, paper_value
from densecl.tables.forms.listing import render
from densecl.tables.listing import Line, Listing
from table_records import make


def reported(method, benchmark="voc15-5s", value=50.0, **more):
    """A row of a paper."""
    return Reported(
        name="P", paper="p", table="1", source="s", method=method, benchmark=benchmark, values=Values(all=value), **more
    )


def test_papers_number_counts_background_where_one_does_and_then_is_of_the_methods_own_paper(tmp_path):
    rows = [
        reported("plop", value=1, grouping="fg-only", file=tmp_path / "plop.toml"),
        reported("plop", value=2, grouping="with-bg"),
        reported("plop", value=3, grouping="with-bg", file=tmp_path / "plop.toml"),
        reported("plop", value=4, grouping="with-bg", setting="disjoint", file=tmp_path / "plop.toml"),
        reported("plop", value=5, grouping="with-bg", variant="128 images", file=tmp_path / "plop.toml"),
        reported("plop+ewf", value=6, benchmark="voc10-1", file=tmp_path / "ewf.toml"),
        reported("plop", value=7, benchmark="ade100-10", file=tmp_path / "plop.toml"),
    ]
    assert paper_value("plop", "15-1", rows) == "3.0"
    assert paper_value("plop", "15-1", rows[:2]) == "2.0"
    assert paper_value("plop", "15-1", rows[:1]) == "1.0"
    assert paper_value("plop+ewf", "10-1", rows) == "6.0"
    assert paper_value("plop", "10-1", rows) == paper_value("mib", "15-1", rows) == ""


def runs():
    """Three methods and joint on a benchmark, one of them with two seeds and on another benchmark too."""
    several = [make(base=0.5), make(base=0.7, seed=1), make("finetune", base=0.0), make("joint", base=0.9)]
    records = [*several, make("plop", base=0.5), make("plop", base=0.4, benchmark="toy3-3")]
    for record in records:
        record.steps[-1] = record.steps[-1].model_copy(update={"parameters": 1234567, "stored_bytes": 3 * 2**20})
    return records


def test_methods_are_lines_from_the_best_to_joint_and_benchmarks_are_columns():
    listing = field(runs(), [reported("plop", value=54.64)])
    assert listing.headings[:3] == ("method", "toy3-1", "toy3-3")
    table = {line.cells[0]: dict(zip(listing.headings, line.cells, strict=True)) for line in listing.lines}
    assert list(table) == ["MiB", "PLOP", "Fine-tuning", "Joint"]
    # (0.9 + 3 base + 3 added) / 7, with added 0.3
    assert table["PLOP"]["toy3-1"] == f"{100 * (0.9 + 1.5 + 0.9) / 7:.1f}"
    assert table["PLOP"]["toy3-3"] == f"{100 * (0.9 + 1.2 + 0.9) / 7:.1f}"
    mean, spread = table["MiB"]["toy3-1"].split(" ±")
    assert float(mean) == pytest.approx(100 * (0.9 + 1.8 + 0.9) / 7, abs=0.05)
    assert float(spread) == pytest.approx(100 * 0.6 / 7 / 2**0.5, abs=0.05)
    assert table["MiB"]["toy3-3"] == "-"
    assert (table["PLOP"]["paper 15-1"], table["MiB"]["paper 15-1"]) == ("54.6", "-")
    costs = [table["PLOP"][heading] for heading in ("parameters", "kept MiB", "forgetting")]
    assert costs == ["1,234,567", "3.0", "10.0"]


@pytest.fixture
def folder(tmp_path):
    for number, record in enumerate(runs()):
        record.write(tmp_path / "runs" / str(number) / "result.json")
    return tmp_path / "runs"


def test_the_command_prints_it_in_every_form(folder, capsys, tmp_path):
    assert main(["table", str(folder), "--layout", "field", "--format", "markdown"]) == 0
    shown = capsys.readouterr().out
    assert "| MiB " in shown
    assert "paper 15-1" in shown
    assert main(["table", str(folder), "--layout", "field", "-o", str(tmp_path / "field.tex")]) == 0
    assert "1,234,567" in (tmp_path / "field.tex").read_text()


def test_a_narrow_screen_keeps_names_and_tells_the_columns_that_it_has_no_room_for():
    numbers = tuple(f"benchmark {k}" for k in range(9))
    name = "a method with a long name and more of it"
    listing = Listing("all", ("method", *numbers), (Line((name, *["71.8 ±2.0"] * 9)),))
    lines = render([listing], width=60).splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert lines[1].split("  ")[0] == "method"
    assert " ".join(line.split("  ")[0] for line in lines[2:4]) == name
    kept = [heading for heading in numbers if heading in lines[1]]
    assert 1 <= len(kept) < 9
    assert " ".join(lines[4:]) == f"a wider screen shows {', '.join(numbers[len(kept) :])}"
    assert all(heading in render([listing], width=200) for heading in numbers)


@pytest.mark.parametrize("other", [["--per-step"], ["--honest"], ["--sort", "all"], ["--group", "with-bg"]])
def test_what_it_cannot_take_is_refused_in_one_line(folder, capsys, other):
    assert main(["table", str(folder), "--layout", "field", *other]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert other[0] in errors
