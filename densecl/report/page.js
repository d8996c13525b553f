// Sorting by the headings, filters, and a choice of theme. The page is complete without.
"use strict";

function number(cell) {
  return "value" in cell.dataset ? Number(cell.dataset.value) : NaN;
}

function sort(table, column, heading) {
  const ascending = heading.getAttribute("aria-sort") === "descending" ||
    (heading.getAttribute("aria-sort") === null && heading.dataset.kind !== "number") ||
    (heading.getAttribute("aria-sort") === null && heading.textContent === "#");
  const sign = ascending ? 1 : -1;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows).map((row, index) => ({ row, index, cell: row.cells[column] }));
  rows.sort((a, b) => {
    if (heading.dataset.kind === "number") {
      const x = number(a.cell), y = number(b.cell);
      if (Number.isNaN(x) || Number.isNaN(y)) { // what is not known stays below
        return Number.isNaN(x) - Number.isNaN(y) || a.index - b.index;
      }
      return sign * (x - y) || a.index - b.index;
    }
    return sign * a.cell.textContent.localeCompare(b.cell.textContent, "en", { numeric: true }) || a.index - b.index;
  });
  body.append(...rows.map((one) => one.row));
  for (const other of table.tHead.rows[0].cells) {
    other.removeAttribute("aria-sort");
  }
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(table, column, heading));
  });
}

// Of a leaderboard: rows that have the chosen values; a benchmark without such rows is hidden.
const filters = document.getElementById("filters");
if (filters) {
  const rows = Array.from(document.querySelectorAll(".board tbody tr"));
  const apply = () => {
    for (const row of rows) {
      row.hidden = Array.from(filters.querySelectorAll("select")).some(
        (one) => one.value && row.dataset[one.name] !== one.value);
    }
    for (const board of document.querySelectorAll(".board")) {
      board.hidden = !board.querySelector("tbody tr:not([hidden])");
    }
    const shown = rows.filter((row) => !row.hidden).length;
    filters.querySelector("output").textContent = `${shown} of ${rows.length} rows`;
  };
  filters.hidden = false;
  filters.addEventListener("change", apply);
  filters.addEventListener("submit", (event) => event.preventDefault());
  apply(); // a browser keeps what was chosen before
}

const root = document.documentElement;
const theme = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
}

function say() {
  theme.textContent = isDark() ? "Light" : "Dark";
  theme.setAttribute("aria-label", isDark() ? "Use the light theme" : "Use the dark theme");
}

theme.hidden = false;
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  say();
});
dark.addEventListener("change", say);
say();

// A link to something folded opens it; all is unfolded on paper.
function reveal() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  for (let node = target; node; node = node.parentElement) {
    if (node.tagName === "DETAILS") node.open = true;
  }
}
addEventListener("hashchange", reveal);
reveal();
