"""Ending processes by identity: with a process table and a clock of our own, and with real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus_devtools.controlplane import launcher
from nexus_devtools.controlplane.processes import (
    ProcessId,
    alive,
    end,
    identify,
    launch,
    read_pid_file,
)

DEADLINE_SECONDS = 20.0


class Table:
    """Processes that end when they get one of the signals they heed."""

    def __init__(self, running: dict[int, str], heeds: set[int]) -> None:
        self.running = running
        self.heeds = heeds
        self.sent: list[tuple[int, int]] = []
        self.now = 0.0

    def started(self, pid: int) -> str | None:
        return self.running.get(pid)

    def signal(self, pid: int, number: int) -> None:
        self.sent.append((pid, number))
        if number in self.heeds:
            del self.running[pid]

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def end(self, process: ProcessId | None) -> None:
        end(process, grace_seconds=5.0, table=self, clock=self.clock, sleep=self.sleep)


def test_a_process_that_heeds_the_request_is_not_killed() -> None:
    table = Table({7: "monday"}, heeds={signal.SIGTERM, signal.SIGKILL})
    table.end(ProcessId(7, "monday"))
    assert table.sent == [(7, signal.SIGTERM)]


def test_a_process_that_does_not_is_killed_once_after_the_grace() -> None:
    table = Table({7: "monday"}, heeds={signal.SIGKILL})
    table.end(ProcessId(7, "monday"))
    assert table.sent == [(7, signal.SIGTERM), (7, signal.SIGKILL)]
    assert table.now == pytest.approx(5.0, abs=0.1)


def test_a_pid_used_again_by_a_later_process_is_left_alone() -> None:
    table = Table({7: "tuesday"}, heeds={signal.SIGTERM})
    table.end(ProcessId(7, "monday"))
    assert table.sent == []
    assert table.running == {7: "tuesday"}


def test_a_pid_used_again_during_the_grace_is_left_alone() -> None:
    class Reusing(Table):
        def signal(self, pid: int, number: int) -> None:
            super().signal(pid, number)
            self.running[pid] = "tuesday"

    table = Reusing({7: "monday"}, heeds=set())
    table.end(ProcessId(7, "monday"))
    assert table.sent == [(7, signal.SIGTERM)]


def test_ending_what_is_gone_or_was_never_there_does_nothing() -> None:
    table = Table({}, heeds=set())
    table.end(ProcessId(7, "monday"))
    table.end(None)
    assert table.sent == []


def test_this_process_has_an_identity_and_an_impossible_one_has_none() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert alive(me)
    assert identify(2**22 + 1) is None
    assert not alive(None)


def test_an_ended_child_that_nobody_has_waited_for_is_not_alive() -> None:
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], dict(os.environ))
    deadline = time.monotonic() + DEADLINE_SECONDS
    while launcher.started(pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert identify(pid) is None


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ProcessId]:
    script = "import sys, time; print('awake', file=sys.stderr, flush=True); time.sleep(60)"
    process = launch(
        [sys.executable, "-c", script], pid_file=tmp_path / "it.pid", log=tmp_path / "logs/it.log"
    )
    assert process is not None
    yield process
    end(process, grace_seconds=0.0)


def wait_for_text(path: Path, text: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < deadline, f"{path} never said {text}"
        time.sleep(0.01)


def test_a_launched_program_writes_its_own_pid_file_and_log(
    sleeper: ProcessId, tmp_path: Path
) -> None:
    wait_for_text(tmp_path / "logs/it.log", "awake")
    assert read_pid_file(tmp_path / "it.pid") == sleeper
    assert os.getsid(sleeper.pid) == sleeper.pid, "a Ctrl-C in the terminal would reach it"


def test_a_launched_program_is_ended_for_real(sleeper: ProcessId) -> None:
    end(sleeper, grace_seconds=DEADLINE_SECONDS)
    assert not alive(sleeper)


@pytest.mark.parametrize("attached", [True, False])
def test_only_an_attached_program_dies_with_the_one_who_started_it(
    attached: bool, tmp_path: Path
) -> None:
    # The parent death signal is Linux's; elsewhere the next start of an instance cleans up.
    survives = not attached or sys.platform != "linux"
    script = (
        "import sys; from pathlib import Path\n"
        "from nexus_devtools.controlplane.processes import launch\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "launch([sys.executable, '-c', 'print(1, flush=True); import time; time.sleep(60)'],\n"
        "       pid_file=folder / 'it.pid', log=folder / 'it.log',\n"
        f"       die_with_parent={attached})\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as parent:
        wait_for_text(tmp_path / "it.log", "1")
        parent.kill()
        parent.wait()
    program = read_pid_file(tmp_path / "it.pid")
    assert program is not None
    try:
        if not survives:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while alive(program):
                assert time.monotonic() < deadline, "it outlived the one who started it"
                time.sleep(0.01)
        assert alive(program) is survives
    finally:
        end(program, grace_seconds=0.0)


def test_the_launcher_starts_nothing_once_its_parent_is_gone(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "it.pid"), "1", "detach", sys.executable, "-c", "print('ran')"]
    answer = subprocess.run(
        [sys.executable, "-I", "-S", launcher.__file__, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "is gone" in answer.stderr
