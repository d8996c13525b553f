"""The room's names, of which most are loaded when they are asked for."""

import subprocess
import sys

import pytest

from densecl import losses


@pytest.mark.parametrize("name", losses.__all__)
def test_every_name_is_a_function_of_the_room(name):
    assert getattr(losses, name).__module__.startswith("densecl.losses.")


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="has no attribute 'focal'"):
        losses.focal  # noqa: B018


def test_a_file_is_loaded_when_a_name_of_it_is_asked_for():
    code = "import sys; import densecl.losses as room; there = lambda: 'densecl.losses.images' in sys.modules\n"
    code += "assert not there(); assert room.images.gram is room.gram and there()"
    subprocess.run([sys.executable, "-c", code], check=True)
