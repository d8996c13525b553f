"""`densecl doctor`: check this machine, and say what to do."""

from typing import Annotated

import typer

from densecl.cli.options import Catalogue, Data, Json

MARKS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "problem": ("!", "yellow"), "error": ("✗", "red")}
BROKEN = 2  # exit code when nothing can be run


def doctor(
    data: Data = None,
    catalogue: Catalogue = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at versions and folders alone, in half a second; import no package.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check packages, devices, data sets, weights and folders; say what is missing and what to do.

    Needs no network and changes nothing. Exit code 2 if no run can be started, else 0.

    densecl doctor

    densecl doctor --data datasets/
    """
    import json
    import os

    from densecl.about.doctor import examine

    findings = examine(data, catalogue, quick)
    able = not any(finding.level == "error" for finding in findings)
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
        summary = ", ".join(f"{count} {level}{'s' * (count > 1)}" for level, count in counts.items() if count)
        able_text = "versions and folders are right; without --quick all is tried" if quick else "ready to run"
        typer.echo(f"\n{able_text if able else 'cannot run'}{f'; {summary}' if summary else ''}")
    if not able:
        raise typer.Exit(BROKEN)
