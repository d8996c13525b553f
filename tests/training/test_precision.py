"""Memory of a run on a CPU."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from densecl.training.precision import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    torch.ones(64, 2**18)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is that of another library")
def test_freed_memory_is_used_again_instead_of_asked_for_page_by_page():
    asked, kept = (int(subprocess.check_output([sys.executable, "-c", CODE, how])) for how in ("asked", "kept"))
    assert kept < asked / 5
