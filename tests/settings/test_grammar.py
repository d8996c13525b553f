import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densecl.errors import SpecError
from densecl.settings.grammar import Call, format_spec, format_value, parse, parse_assignment, parse_one, parse_value

SPEC_LIKE = st.text(alphabet="ab1.-+_=(),[]'\"\\ eE:/\n\t", max_size=40)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,6}(\.[a-z]{1,4})?", fullmatch=True)
CALLS = st.builds(Call, st.text(min_size=1, max_size=12), st.dictionaries(KEYS, VALUES, max_size=4))


def typed(value):
    """A value with its types, since 1 == 1.0 == True."""
    return [typed(item) for item in value] if isinstance(value, tuple) else (type(value), value)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("mib", (Call("mib"),)),
        ("mib()", (Call("mib"),)),
        ("voc15-5s(setting=disjoint)", (Call("voc15-5s", {"setting": "disjoint"}),)),
        ("mib(distillation=5)+replay(memory=100)", (Call("mib", {"distillation": 5}), Call("replay", {"memory": 100}))),
        (" mib ( distillation = 5 , ) + replay ", (Call("mib", {"distillation": 5}), Call("replay"))),
        ("mine.py:Mine", (Call("mine.py:Mine"),)),
        ("~/methods/mine.py:Mine(x=1)", (Call("~/methods/mine.py:Mine", {"x": 1}),)),
        ("'../a b.py:Mine'(x=1)+ewc", (Call("../a b.py:Mine", {"x": 1}), Call("ewc"))),
        ("unet(widths=(16, 32), norm=batch)", (Call("unet", {"widths": (16, 32), "norm": "batch"}),)),
    ],
)
def test_specs_read_as_names_with_literal_arguments(text, calls):
    assert parse(text) == calls


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("1_000", 1000),
        ("1e-3", 0.001),
        ("1e+3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("true", True),
        ("True", True),
        ("false", False),
        ("False", False),
        ("none", None),
        ("None", None),
        ("resnet50", "resnet50"),
        ("../weights/a.pth", "../weights/a.pth"),
        ("15-5", "15-5"),
        ("nan", "nan"),
        ("'none'", "none"),
        ("'5'", "5"),
        ('"a, b"', "a, b"),
        (r"'it\'s a \\'", "it's a \\"),
        (r"'C:\new'", r"C:\new"),
        ("()", ()),
        ("(1)", (1,)),
        ("(1,)", (1,)),
        ("[1, (2, x), none]", (1, (2, "x"), None)),
    ],
)
def test_values_are_literals_of_the_expected_type(text, value):
    assert typed(parse_value(text)) == typed(value)


def test_nothing_is_evaluated():
    assert parse_value("1+1") == "1+1"
    with pytest.raises(SpecError):
        parse_value("__import__('os')")


def test_assignments_have_dotted_keys():
    assert parse_assignment("strategy.distillation=5") == ("strategy.distillation", 5)
    assert parse_assignment("data.root='/my data'") == ("data.root", "/my data")


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("mib(", 5, "key=value"),
        ("mib(5)", 5, "key=value"),
        ("mib(a=)", 7, "a value"),
        ("mib(a=1", 8, "',' or ')'"),
        ("mib(a=1 b=2)", 9, "',' or ')'"),
        ("mib(a=1,a=2)", 9, "another key"),
        ("mib+", 5, "a name"),
        ("+mib", 1, "a name"),
        ("mib lwf", 5, "'+' or the end"),
        ("mib)", 4, "'+' or the end"),
        ("mib(a='x)", 7, "a closing quote"),
        ("mib(a=(1,2]", 11, "',' or ')'"),
        ("mib(a=1e999)", 7, "a smaller number"),
        ("''", 3, "a name between the quotes"),
        ("a(x=" + "(" * 100, 22, "nested"),
    ],
)
def test_errors_name_the_column_and_what_was_expected(text, column, expected):
    with pytest.raises(SpecError, match=f"column {column},") as caught:
        parse(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_empty_text_is_refused(text):
    with pytest.raises(SpecError, match="empty"):
        parse(text)


def test_blanks_in_a_value_are_told_to_be_quoted():
    with pytest.raises(SpecError, match="quote text that holds blanks"):
        parse_assignment("data.root=/my data")


def test_one_name_refuses_a_sum():
    assert parse_one("voc15-5", "benchmark") == Call("voc15-5")
    with pytest.raises(SpecError, match="a benchmark is one name"):
        parse_one("voc15-5+mib", "benchmark")


def test_huge_numbers_are_refused_not_computed():
    with pytest.raises(SpecError, match="smaller number"):
        parse_value("9" * 100_000)


def test_canonical_text_sorts_keys_and_quotes_only_where_needed():
    calls = parse("mib( z=[1], a='plain', b='true', c=\"x y\" )+ewc()")
    assert format_spec(calls) == "mib(a=plain, b='true', c='x y', z=(1,))+ewc"
    assert str(calls[1]) == "ewc"


def test_a_name_is_quoted_where_needed():
    assert format_spec([Call("../a b.py:Mine")]) == "'../a b.py:Mine'"


@given(st.lists(CALLS, min_size=1, max_size=3))
def test_parsing_undoes_formatting(calls):
    back = parse(format_spec(calls))
    assert back == tuple(calls)
    for before, after in zip(calls, back, strict=True):
        assert {k: typed(v) for k, v in before.arguments.items()} == {k: typed(v) for k, v in after.arguments.items()}


@given(VALUES)
def test_parsing_undoes_formatting_of_values(value):
    assert typed(parse_value(format_value(value))) == typed(value)


@settings(max_examples=400)
@given(st.one_of(st.text(max_size=60), SPEC_LIKE))
def test_any_text_parses_or_raises_one_line_of_spec_error(text):
    for function in (parse, parse_value, parse_assignment):
        message = ""
        try:
            function(text)
        except SpecError as error:
            message = str(error)
        assert message.isprintable()  # hence one line, and no escape codes


@given(SPEC_LIKE)
def test_formatting_what_was_parsed_is_stable(text):
    try:
        calls = parse(text)
    except SpecError:
        return
    assert parse(format_spec(calls)) == calls
    assert format_spec(parse(format_spec(calls))) == format_spec(calls)


def test_floats_keep_every_digit():
    for value in (1 / 3, 1e-300, 1e22, -0.0, math.pi):
        assert repr(parse_value(format_value(value))) == repr(value)


def test_a_table_as_a_value_is_refused_with_the_way_to_write_it():
    for text in ("training.later={iterations=200}", "training.later= { 'iterations': 200 }"):
        with pytest.raises(
            SpecError, match=r"a value cannot be a table\. set each of its keys, as in training\.later\.KEY="
        ):
            parse_assignment(text)
