"""The command line: one file per command. Its top imports typer alone; a command imports what it needs when it runs.

So `densecl --help` answers at once, and names and paths are checked before anything slow is imported.
"""

import contextlib
import errno
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from densecl import __version__
from densecl.errors import DenseCLError
from densecl.files import write_error
from densecl.terminal import understands_codes

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE = 141  # 128 + SIGPIPE
COMMANDS = {  # name -> file and function, or application of several commands
    "run": "run:run",
    "table": "table:table",
    "report": "report:report",
    "sweep": "sweep:sweep",
    "reproduce": "reproduce:reproduce",
    "list": "list_:list_",
    "show": "show:show",
    "cite": "show:cite",
    "evaluate": "evaluate:evaluate",
    "predict": "predict:predict",
    "score": "score:score",
    "export": "export:export",
    "submit": "submit:submit",
    "check-results": "submit:check_results",
    "probe": "probe:probe",
    "bank": "bank:bank",
    "check": "check:check",
    "inspect": "inspect_:inspect",
    "data": "data:app",
    "first": "first:app",
    "doctor": "doctor:doctor",
}


START = """\
densecl compares methods of continual learning in dense prediction. To begin:
  densecl run -b shapes15-5 -s mib    train a method, a few minutes, no download
  densecl table results               compare what was run
  densecl list                        benchmarks, methods, backbones, data sets
  densecl show mib                    a method's paper and hyper-parameters
  densecl --help                      all commands"""


class Group(TyperGroup):
    """Imports a command when it is named, and ends it with one line after Ctrl-C."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.commands = {**dict.fromkeys(COMMANDS), **self.commands}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name; None if there is none."""
        if cmd_name in COMMANDS and self.commands[cmd_name] is None:
            file, _, name = COMMANDS[cmd_name].partition(":")
            command = getattr(importlib.import_module(f"densecl.cli.{file}"), name)
            if not isinstance(command, typer.Typer):
                function, command = command, typer.Typer(add_completion=False)
                command.command(cmd_name)(function)
            self.commands[cmd_name] = typer.main.get_command(command)
        return self.commands.get(cmd_name)

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
    if not words and "_DENSECL_COMPLETE" not in os.environ:  # the shell asks for names without words
        print(START)
        return 0
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show '±' gets '?'
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what is wrong with an image is said in one line
    try:
        code = app(args=words, prog_name="densecl", standalone_mode=False)
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
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        if _speaks():
            complain(str(write_error(error.filename or "", error, "use")))
        _discard_output()
        return 2
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # pydantic wraps one that falls into a serializer
            complain("interrupted")
            return INTERRUPTED
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
    with contextlib.suppress(BrokenPipeError):  # on a terminal, the rest of a progress bar on the line is cleared
        end = "\x1b[K\n" if understands_codes(sys.stderr) else "\n"
        print("densecl:", " ".join(message.split()), end=end, file=sys.stderr, flush=True)


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
