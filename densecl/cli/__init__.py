"""The command line: one file per command. Its top imports typer alone; a command imports what it needs when it runs.

So `densecl --help` answers at once, and names and paths are checked before anything slow is imported.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from densecl import __version__
from densecl.cli import data
from densecl.cli.bank import bank
from densecl.cli.check import check
from densecl.cli.doctor import doctor
from densecl.cli.evaluate import evaluate
from densecl.cli.inspect_ import inspect
from densecl.cli.list_ import list_
from densecl.cli.predict import predict
from densecl.cli.report import report
from densecl.cli.run import run
from densecl.cli.show import cite, show
from densecl.cli.sweep import sweep
from densecl.cli.table import table
from densecl.errors import DenseCLError

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE = 141  # 128 + SIGPIPE


class Group(TyperGroup):
    """End a command with one line after Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if _speaks():
                complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"densecl {__version__}")
        raise typer.Exit


app = typer.Typer(name="densecl", cls=Group, pretty_exceptions_enable=False)
app.command("run")(run)
app.command("table")(table)
app.command("report")(report)
app.command("sweep")(sweep)
app.command("list")(list_)
app.command("show")(show)
app.command("cite")(cite)
app.command("evaluate")(evaluate)
app.command("predict")(predict)
app.command("bank")(bank)
app.command("check")(check)
app.command("inspect")(inspect)
app.add_typer(data.app, name="data")
app.command("doctor")(doctor)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The benchmark suite for continual learning in dense prediction."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 after Ctrl-C.

    Bad input of any kind is one line on stderr. Any other exception is a bug and keeps its traceback.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show '±' gets '?'
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    try:
        code = app(args=words or ["--help"], prog_name="densecl", standalone_mode=False)
        sys.stdout.flush()
    except DenseCLError as error:
        if _speaks():
            complain(str(error))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        complain(f"no space left on the disk{f' of {error.filename}' if error.filename else ''}. free some space")
        _discard_output()
        return 2
    except Exception as error:
        message = _usage(error)
        if message is None:
            raise
        if not message:  # a group without a command has shown its help
            return 0
        complain(message)
        return 2
    return code if isinstance(code, int) else 0


def _speaks() -> bool:
    """True if this process reports why the run ends: one of those that torchrun started does."""
    if "RANK" not in os.environ:
        return True
    from densecl.training.distributed import claim_failure

    return claim_failure()


def complain(message: str) -> None:
    """Write `message` to stderr as one unwrapped line."""
    screen = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    with contextlib.suppress(BrokenPipeError):  # on a terminal, the rest of a progress bar on the line is cleared
        print("densecl:", " ".join(message.split()), end="\x1b[K\n" if screen else "\n", file=sys.stderr, flush=True)


def _usage(error: Any) -> str | None:
    """Typer's message about wrong options and arguments; None for errors of any other kind."""
    if not hasattr(error, "format_message"):
        return None
    text = error.format_message().strip().rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "densecl"
    return f"{text}. see {command} --help" if text else ""


def _discard_output() -> None:
    """Keep Python from complaining again when it flushes stdout at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
