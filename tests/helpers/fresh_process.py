"""The command line in processes that have imported nothing but its frame: forks of one interpreter, started once."""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]


class Answer(NamedTuple):
    """How a command ended, what it wrote, and the modules that were imported then."""

    returncode: int
    stdout: str
    stderr: str
    modules: frozenset[str]


def answer(*words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Answer:
    """Run `densecl WORDS` in a folder and an environment, by default the project's and this one."""
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{name}" for name in ("stdout", "stderr", "modules")]
        task = {
            "words": words,
            "cwd": str(cwd or ROOT),
            "env": dict(os.environ if env is None else env),
            "files": files,
        }
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(task) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        out, err, modules = (Path(file).read_text(encoding="utf-8") for file in files)
    return Answer(code, out, err, frozenset(modules.split()))


@cache
def _server() -> subprocess.Popen[str]:
    command = [sys.executable, __file__]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
    atexit.register(server.terminate)
    return server


def _serve() -> None:
    """Fork for each task that is read, and say how each ended."""
    import densecl.cli  # noqa: F401 (what any command imports)

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _carry_out(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _carry_out(task: dict[str, Any]) -> None:
    """Be the command; never returns."""
    from densecl.cli import main

    code, (out, err, modules) = 1, task["files"]
    os.chdir(task["cwd"])
    os.environ.clear()
    os.environ.update(task["env"])
    for number, path in enumerate(("/dev/null", out, err)):
        os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    sys.argv = ["densecl", *task["words"]]
    try:
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        Path(modules).write_text("\n".join(sys.modules), encoding="utf-8")
        os._exit(code)


if __name__ == "__main__":
    _serve()
