"""Progress on terminals as the system makes them."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from rich.console import Console
from test_progress import CODES, console, look, start

from densecl.listeners.events import StepStart
from densecl.listeners.progress import Progress
from densecl.terminal import say

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
PROBE = """
import sys, time
sys.path.insert(0, {tests!r})
from rich.console import Console
from test_progress import *
progress = Progress()
progress.counted("masks", 1, 2)
start(progress)
progress.step_started(StepStart(0, 2, 40, 20, 0))
progress.looked(look(0, 1))
time.sleep(0.7)
progress.line("said")
progress.run_finished("finished")
"""


def on_a_pty(**variables):
    """Run the probe on a terminal and return what it writes."""
    main, other = pty.openpty()
    environment = {**ENVIRONMENT, "COLUMNS": "60", "TERM": "xterm-256color", **variables}
    written = []

    def read():
        while True:
            try:
                part = os.read(main, 4096)
            except OSError:  # Linux says so when the other end is closed
                return
            if not part:
                return
            written.append(part)

    code = PROBE.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=other, stdout=other, env=environment)
    os.close(other)
    reader = threading.Thread(target=read)
    reader.start()
    assert process.wait(60) == 0
    reader.join(10)
    os.close(main)
    return b"".join(written).decode()


def test_a_terminal_that_is_dumb_gets_lines_without_codes():
    shown = on_a_pty(TERM="dumb")
    assert "\x1b" not in shown
    assert re.search(r"^\d\d:\d\d:\d\d said", shown, re.MULTILINE)


def test_without_colour_bars_are_drawn_in_one_colour():
    shown = on_a_pty(NO_COLOR="1")
    assert re.search(r"step ╸ +2% epoch 1 of 2", CODES.sub("", shown))
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m|\x1b\[[0-9;]*9[0-9]m", shown)


def test_on_a_terminal_colours_and_bars_are_drawn_and_gone_at_the_end():
    shown = on_a_pty()
    assert re.search(r"\x1b\[[0-9;]*9[0-9]m", shown)
    assert "epoch 1 of 2" in CODES.sub("", shown)
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert shown.index("\r\x1b[K") < shown.index("run")  # the scan's line went before the bars came
    assert shown.endswith(3 * "\x1b[1A\x1b[2K")  # the bars' three lines


def test_a_stream_that_nobody_reads_any_more_ends_nothing():
    code = "from densecl.terminal import *; c = stderr_console(); say(c, 'a'); say(c, 'b'); print('went on')"
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=writer, env=ENVIRONMENT)
    os.close(writer)
    assert (process.returncode, process.stdout) == (0, b"went on\n")


def test_a_full_disk_under_a_log_ends_nothing():
    class Full(io.StringIO):
        def write(self, _text):
            raise OSError(28, "No space left on device")

    say(Console(file=Full()), "lost")


def test_drawing_costs_little():
    """A frame, of which two a second are drawn, takes a small part of half a second."""
    clock = time.process_time
    progress = Progress(console=console(True))
    start(progress)
    progress.step_started(StepStart(1, 2, 40, 20, 0))
    progress.looked(look(1, 30))
    begun = clock()
    for _ in range(50):
        progress.bars.refresh()
    assert (clock() - begun) / 50 < 0.025
    progress.run_finished("finished")
