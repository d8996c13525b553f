"""`densecl submit` and `densecl check-results`: send runs to others, and check what they sent."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli import completion

TEXT = "at most 200 characters"


def submit(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs, or folders with runs.", autocompletion=completion.runs)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle: a folder, or a zip file if NAME.zip.")],
    author: Annotated[str, typer.Option(help=f"Who sends them; {TEXT}.")] = "",
    name: Annotated[str | None, typer.Option(help="Name of the bundle (default: that of --output).")] = None,
    paper: Annotated[str | None, typer.Option(help=f"The paper that they belong to; {TEXT}.")] = None,
    code: Annotated[str | None, typer.Option(help=f"Where the method's code is, and its version; {TEXT}.")] = None,
    note: Annotated[str | None, typer.Option(help=f"Anything else to know; {TEXT}.")] = None,
) -> None:
    """Make a small bundle of finished runs to send: records, pictures, who sends them, checksums; no weights.

    Records are sent as they are, with all settings and the folder of the data.

    densecl submit results/voc15-5s/plop -o plop-voc.zip --author 'A. Author' --paper 'Author et al., Venue 2026'

    densecl submit results/voc15-5s/Mine -o mine --author 'A. Author' --code 'https://example.org/mine, commit 1a2b3c4'
    """
    from densecl.errors import SettingError
    from densecl.finished.submit import submit as write

    if not author:
        raise SettingError("a bundle says who sends it", "--author 'A. Author, Institute'")
    sent = write(runs, output, author=author, name=name, paper=paper, code=code, note=note)
    for record in sent.edited:
        typer.echo(f"densecl: {record} was changed after the run; the bundle says so", err=True)
    typer.echo(f"wrote {sent.path}: {sent.runs} run{'s' * (sent.runs > 1)}, {sent.size / 2**20:.2f} MiB", err=True)


def check_results(
    path: Annotated[Path, typer.Argument(help="The folder of all bundles, or one bundle.")] = Path("results/community"),
    before: Annotated[
        Path | None, typer.Option(help="The folder of an earlier state, or its index.json: nothing of it may be gone.")
    ] = None,
    add: Annotated[Path | None, typer.Option(help="A bundle to check and to put into the folder.")] = None,
) -> None:
    """Check bundles that people sent: names, hashes, doubled runs, honest fields, and that nothing is gone.

    Each fault is one line; the command then exits with code 2.

    densecl check-results

    densecl check-results plop-voc.zip

    densecl check-results results/community --add plop-voc.zip
    """
    from densecl.errors import RecordError, SettingError
    from densecl.records import bundle, community

    if not path.exists():
        raise RecordError(f"{path} does not exist", "name the folder of bundles, or a bundle")
    single = path.is_file() or (path / bundle.FILE_NAME).is_file()
    if single and (before or add):
        raise SettingError(f"{path} is one bundle", "--before and --add are for the folder of all bundles")
    if add is not None and before is not None:
        raise SettingError("--add and --before are two things to do", "check with --before once it is added")
    if add is not None:
        checked = community.add(path, add)
    else:
        checked = community.check_bundle(path) if single else community.check_all(path, before)
    for fault in checked.faults:
        typer.echo(f"✗ {fault}")
    for record in checked.marked:
        typer.echo(f"densecl: {record} was changed after the run, and says so", err=True)
    if checked.faults:
        typer.echo(f"{len(checked.faults)} fault{'s' * (len(checked.faults) > 1)}", err=True)
        raise typer.Exit(2)
    words = f"{checked.bundles} bundle{'s' * (checked.bundles != 1)}, {checked.runs} run{'s' * (checked.runs != 1)}"
    typer.echo(f"✓ {words}" + (f": added {add}" if add is not None else ""))
