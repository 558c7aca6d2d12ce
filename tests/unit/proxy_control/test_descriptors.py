"""The limit of open files, in a process of its own: a limit is a process's."""

from __future__ import annotations

import resource
import subprocess
import sys

CODE = """
import resource
from nexus_proxy.descriptors import take_all
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
print(take_all(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(hard)] * 3
