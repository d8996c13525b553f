"""`densecl doctor`: what is here, what is missing, and what to do about it."""

from typing import Annotated

import typer

from densecl.cli.options import Catalogue, Data

MARKS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "problem": ("!", "yellow"), "error": ("✗", "red")}
BROKEN = 2  # exit code when nothing can be run


def doctor(
    data: Data = None,
    catalogue: Catalogue = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at packages, devices, data sets, weights and folders; say what is missing and what to do.

    Needs no network and changes nothing. Exit code 2 if no run can be started, else 0.
    """
    import json
    import os

    from densecl.about.doctor import examine, runnable

    findings = examine(data, catalogue)
    able = runnable(findings)
    if as_json:
        listed = [finding._asdict() for finding in findings]
        typer.echo(json.dumps({"runnable": able, "findings": listed}, indent=1, ensure_ascii=False))
    else:
        part, colours = "", False if os.environ.get("NO_COLOR") else None
        for finding in findings:
            if finding.part != part:
                typer.secho(("\n" if part else "") + finding.part, bold=True, color=colours)
                part = finding.part
            mark, colour = MARKS[finding.level]
            typer.echo(f" {typer.style(mark, fg=colour)} {finding.text}", color=colours)
            if finding.advice:
                typer.echo(f"   {finding.advice}")
        counts = {level: sum(finding.level == level for finding in findings) for level in ("error", "problem")}
        said = ", ".join(f"{count} {level}{'s' * (count > 1)}" for level, count in counts.items() if count)
        typer.echo(f"\n{'ready to run' if able else 'cannot run'}{f'; {said}' if said else ''}")
    if not able:
        raise typer.Exit(BROKEN)
