"""What a page of the documentation shows: its blocks of code, and its command lines as typer reads them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer.main

from densecl.cli import app
from densecl.runner.plan import make_plan

FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# (\S+\.(?:py|toml))\n")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        kind: python, toml, "" or, of a directive, its name in braces. content: without the fences.
        file: the name in its first line, where it is `# name.py` or `# name.toml`; else empty.
    """

    kind: str
    content: str
    file: str


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page."""
    found = []
    for head, content in FENCE.findall(text):
        named = FILE.match(content)
        found.append(Block(head.strip(), content, named[1] if named else ""))
    return found


def inline(text: str) -> list[str]:
    """All code in single quotes, outside of blocks."""
    return [code.replace("\\|", "|") for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text))]


def commands(text: str) -> list[str]:
    """The `densecl ...` command lines of a page, in blocks, in directives and inline, without what torchrun adds."""
    lines = [line for block in blocks(text) if block.kind in ("", "console") for line in block.content.splitlines()]
    lines = [_bare(line) for line in [*lines, *inline(text)]]
    lines += [
        block.kind.replace("{densecl} ", "densecl ") for block in blocks(text) if block.kind.startswith("{densecl}")
    ]
    return sorted({line for line in lines if line.startswith("densecl ")})


def _bare(line: str) -> str:
    """Without comment, and without what stands before `-m densecl`."""
    line = re.split(r"\s#", line)[0].strip()
    return re.sub(r"^torchrun .* -m densecl ", "densecl ", line)


def parsed(command: str) -> tuple[str, dict[str, Any]]:
    """(name of the command, its options) as typer reads them; nothing is run."""
    group = typer.main.get_command(app)
    words = shlex.split(command)[1:]
    with group.make_context("densecl", [words[0], *words[1:]], resilient_parsing=True) as context:
        name, found, rest = group.resolve_command(context, words)
        if hasattr(found, "resolve_command"):
            with found.make_context(name, list(rest), parent=context, resilient_parsing=True) as inner:
                name, found, rest = found.resolve_command(inner, rest)
    assert found is not None, f"there is no command {name}"
    if not rest or "[" in command or "..." in command:  # stand for what a reader puts there
        return name, {}
    for parameter in found.params:  # the folders of a reader are not here
        parameter.callback = None
    with found.make_context(name, list(rest)) as inner:
        return name, dict(inner.params)


def help_of(name: str) -> str | None:
    """The help of a command."""
    return typer.main.get_command(app).get_command(None, name).help


def resolve(options: dict[str, Any]) -> None:
    """Make the plan of a `densecl run`: names, settings and hyper-parameters exist and fit; no data is read."""
    make_plan(
        options["benchmark"],
        options["strategy"],
        backbone=options["backbone"],
        assignments=options["assignments"] or (),
        weights=options["weights"],
        precision=options["precision"],
        validation=options["validation"],
        workers=options["workers"],
        catalogue=options["catalogue"],
        device="cpu",
    )


def write_files(text: str, folder: Path) -> Iterator[Path]:
    """Write the blocks of a page that name a file, as a reader would."""
    for block in blocks(text):
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.content, encoding="utf-8")
            yield path
