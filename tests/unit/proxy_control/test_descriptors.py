"""The limit of open files, in a process of its own: a limit is a process's."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from nexus_proxy.descriptors import UNLIMITED, clients_that_fit

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


@pytest.mark.parametrize(
    ("limit", "clients"), [(1024, 488), (20_000, 9_976), (-1, UNLIMITED), (10, 1)]
)
def test_each_client_leaves_room_for_its_backend(limit: int, clients: int) -> None:
    assert clients_that_fit(limit) == clients
