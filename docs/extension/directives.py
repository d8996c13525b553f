"""Directives that put generated text into pages, and docstrings as Sphinx wants them."""

import contextlib
import io
import re
import shlex
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from densecl.cli import main
from extension import text

ESCAPED = re.compile(r"(`[^`]*`)|(?<![\\:])(\*+|(?<=\w)_(?=\W|$)|\|)")


class Catalogue(SphinxDirective):
    """```{catalogue} strategies```: a section for each; `records` and `counts`: tables."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes of the generated Markdown."""
        for folder in ("strategies", "benchmarks", "results"):
            self.env.note_dependency(str(text.ROOT / folder))
        return self.parse_text_to_nodes(text.KINDS[self.arguments[0]](), allow_section_headings=True)


class Published(SphinxDirective):
    """```{published} MiB, Table 1 | mib | voc15-5```: rows of a paper's table, of a method on a benchmark."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """The nodes of the table."""
        return self.parse_text_to_nodes(text.published(*self.arguments[0].split(" | ")))


class Command(SphinxDirective):
    """```{densecl} table results/embedded```: a command, run while the page is built, and what it printed."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"markdown": directives.flag}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """A block with command and output; with `markdown` the output is parsed."""
        words = self.arguments[0]
        output = printed(shlex.split(words))
        if "markdown" in self.options:
            return self.parse_text_to_nodes(text.without_heading(output), allow_section_headings=True)
        block = nodes.literal_block("", f"$ densecl {words}\n{output}")
        block["language"] = "text"
        return [block]


def printed(words: list[str], folder: Path = text.ROOT) -> str:
    """Run a command in the root of the project and return what it prints.

    Raises:
        RuntimeError: it ended in an error.
    """
    stream = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        code = main(words)
    if code:
        raise RuntimeError(f"densecl {shlex.join(words)} ended with {code}: {stream.getvalue()}")
    return stream.getvalue()


def literal(line: str) -> str:
    """A line of a docstring, in which `*`, `|` and `name_` outside of quotes mean nothing to docutils."""
    return ESCAPED.sub(lambda m: m[1] or "".join("\\" + c for c in m[2]), line)


def _docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [line if line.lstrip().startswith(("..", ":py:")) else literal(line) for line in lines]


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Fields of named tuples are described by their class; Python's own docstring of them says nothing."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of it."""
    app.add_directive("catalogue", Catalogue)
    app.add_directive("published", Published)
    app.add_directive("densecl", Command)
    app.connect("autodoc-process-docstring", _docstring, priority=600)  # after napoleon
    app.connect("autodoc-skip-member", _skip)
    return {"version": "1", "parallel_read_safe": True}
