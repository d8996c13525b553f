"""The report in headless Chromium, with the network off."""

import pytest

from browser import browse, find_browser
from densecl.cli import main

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine")

COLUMN = """(name) => {
  const index = (table) => [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === name);
  const table = [...document.querySelectorAll("table.sortable")].find((one) => index(one) >= 0);
  const column = index(table);
  return [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
}"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    program = find_browser()
    assert program is not None
    with browse(program, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(chromium, report_runs):
    """The report at 1280 pixels, just opened."""
    chromium.events.clear()
    chromium.size(1280)
    chromium.open(report_runs / "report.html")
    return chromium


def opened(page, path, width, dark):
    """Open a page on a screen of that width, with nothing heard of before."""
    page.events.clear()
    page.size(width, dark=dark, mobile=width < 500)
    page.open(path)


def column(page, name):
    return page.evaluate(f"({COLUMN})({name!r})")


def heading(page, name):
    """Order that the heading states."""
    cells = "[...document.querySelectorAll('table.sortable thead th')]"
    return page.evaluate(f"{cells}.find((cell) => cell.textContent === {name!r}).getAttribute('aria-sort')")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_renders_without_a_complaint_a_request_or_scrolling_sideways(page, report_runs, width, dark):
    opened(page, report_runs / "report.html", width, dark)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelectorAll('figure svg').length") > 10
    assert page.evaluate(
        "[...document.querySelectorAll('.picture')].every((one) => one.getBoundingClientRect().height > 5)"
    )
    assert page.complaints() == []
    assert page.requests() == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_leaderboard_renders_without_a_complaint_or_scrolling_sideways(page, report_runs, width, dark):
    opened(page, report_runs / "leaderboard.html", width, dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.complaints() == []
    assert page.requests() == []


def test_the_leaderboard_is_filtered_by_what_is_chosen(page, report_runs):
    page.open(report_runs / "leaderboard.html")
    rows = "[...document.querySelectorAll('.board tbody tr')]"
    shown = f"{rows}.filter((row) => row.getClientRects().length)"
    everything = page.evaluate(f"{rows}.length")
    assert page.evaluate(f"{shown}.length") == everything > 6

    def choose(name, value):
        one = f"document.querySelector('select[name={name}]')"
        page.evaluate(f"{one}.value = {value!r}; {one}.dispatchEvent(new Event('change', {{bubbles: true}})); 1")

    choose("protocol", "task sequence")
    assert 0 < page.evaluate(f"{shown}.length") < everything
    assert page.evaluate(f"{shown}.every((row) => row.dataset.protocol === 'task sequence')")
    assert page.evaluate("document.querySelector('output').textContent").endswith(f"of {everything} rows")
    hidden = page.evaluate("[...document.querySelectorAll('.board')].filter((board) => board.hidden).length")
    assert hidden == page.evaluate("document.querySelectorAll('.board').length") - 1
    choose("protocol", "")
    assert page.evaluate(f"{shown}.length") == everything
    assert page.complaints() == []


def test_pictures_of_the_grid_are_wide_enough_and_a_narrow_screen_scrolls_them_alone(page, report_runs):
    page.size(400, mobile=True)
    page.open(report_runs / "report.html")
    widths = page.evaluate("[...document.querySelectorAll('.tiles .picture')].map((one) => one.clientWidth)")
    count = int(page.evaluate("getComputedStyle(document.querySelector('.tiles')).getPropertyValue('--count')"))
    assert min(widths) >= 160 * count
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_class_table_sorts_by_a_method(page):
    cells = "[...document.querySelector('table.heat').tBodies[0].rows].map((row) => Number(row.cells[1].dataset.value))"
    page.evaluate("document.querySelectorAll('table.heat thead button')[1].click()")
    values = [value for value in page.evaluate(cells) if value is not None]
    assert values == sorted(values, reverse=True)
    assert len(values) > 3


def test_the_network_is_seen_when_it_is_asked(page):
    # the tests above would not notice a request if this one did not
    page.evaluate("document.querySelector('meta[http-equiv]').remove()")
    page.evaluate("fetch('https://example.org/x').catch(() => 0).then(() => 1)")
    assert page.requests() != [] or page.complaints() != []


def test_a_table_is_sorted_by_the_keyboard_alone(page):
    before = column(page, "all")
    for _ in range(600):
        page.press("Tab")
        if page.evaluate("document.activeElement.closest('th')?.textContent === 'all'"):
            break
    else:
        pytest.fail("the heading cannot be reached by Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter")
    descending = column(page, "all")
    assert heading(page, "all") == "descending"
    page.press("Space")
    ascending = column(page, "all")
    assert heading(page, "all") == "ascending"

    def number(text):
        return float(text.split()[0])

    assert [number(text) for text in descending] == sorted(map(number, before), reverse=True)
    assert [number(text) for text in ascending] == sorted(map(number, before))
    assert page.complaints() == []


def test_sorting_by_name_goes_both_ways_and_leaves_one_mark(page):
    click = (
        "[...document.querySelectorAll('table.sortable th button')].find((b) => b.textContent === 'strategy').click()"
    )
    page.evaluate(click)
    first = column(page, "strategy")
    page.evaluate(click)
    assert column(page, "strategy") == first[::-1]
    table = "[...document.querySelectorAll('table.sortable')].find((one) => one.querySelector('[aria-sort]'))"
    assert page.evaluate(f"{table}.querySelectorAll('[aria-sort]').length") == 1


def test_the_theme_follows_the_system_and_the_button(page, report_runs):
    def colours():
        svg = "document.querySelector('figure svg[role=img] text')"
        return page.evaluate(f"[getComputedStyle(document.body).color, getComputedStyle({svg}).fill]")

    light = colours()
    assert light[0] == light[1], "the text of figures has the colour of the page's text"
    page.size(1280, dark=True)
    dark = colours()
    assert dark[0] == dark[1] != light[0]
    page.evaluate("document.getElementById('theme').focus()")
    page.press("Enter")
    assert colours() == light
    page.press("Enter")
    assert colours() == dark


def test_it_is_complete_without_javascript(page, report_runs):
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(report_runs / "report.html")
        root = page.send("DOM.getDocument", depth=-1)["root"]["nodeId"]
        assert page.send("DOM.querySelectorAll", nodeId=root, selector="table.sortable tbody tr")["nodeIds"]
        assert not page.send("DOM.querySelectorAll", nodeId=root, selector="th button")["nodeIds"]
    finally:
        page.send("Emulation.setScriptExecutionDisabled", value=False)


def test_a_link_to_something_folded_opens_it(page):
    page.evaluate("document.querySelector('.groupings').id = 'folded'; location.hash = '#folded'; 1")
    assert page.evaluate("new Promise((done) => setTimeout(() => done(document.querySelector('.groupings').open), 50))")


def test_the_committed_records_render(page, tmp_path):
    from report_runs import COMMITTED

    assert main(["report", str(COMMITTED.parents[1]), "-o", str(tmp_path / "r.html")]) == 0
    page.events.clear()
    page.open(tmp_path / "r.html")
    assert page.evaluate("document.querySelectorAll('h3').length") > 6
    assert page.complaints() == []
    assert page.requests() == []
