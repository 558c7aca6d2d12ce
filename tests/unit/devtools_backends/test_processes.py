"""Simulated backends as processes: ready when told, gone when stopped or orphaned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from nexus_devtools.backends import Child, ChildError, Fault, FaultKind, Script, SimulatedProcess


def gone(pid: int) -> bool:
    """Whether no process with that pid runs (a zombie of somebody else's counts as gone)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def test_a_process_serves_takes_scripts_reports_and_ends(tmp_path: Path) -> None:
    with SimulatedProcess(name="sim-p", models=["m1"], log=tmp_path / "log") as sim:
        body = {"model": "m1", "messages": []}
        assert httpx.post(f"{sim.url}/v1/chat/completions", json=body).status_code == 200
        sim.set(Script(faults=(Fault(kind=FaultKind.REFUSE),)))
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{sim.url}/health")
        sim.set(Script())
        assert httpx.get(f"{sim.url}/health").status_code == 200
        assert sim.seen().requests == 1
        assert sim.seen().name == "sim-p"
        child = sim.child
    assert child.exit_code == 0


def test_a_process_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        SimulatedProcess(log=tmp_path / "first") as sim,
        pytest.raises(ChildError, match="choose another port"),
    ):
        SimulatedProcess(port=int(sim.url.rpartition(":")[2]), log=tmp_path / "second").start()


def test_a_command_that_does_not_exist_says_so(tmp_path: Path) -> None:
    child = Child(["no-such-command"], log=tmp_path / "log")
    with pytest.raises(ChildError, match="cannot run no-such-command"):
        child.wait_for_line("ready")
    assert child.stop() == 127


def test_a_stubborn_child_is_killed_with_what_it_started(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 60 & echo inner $!; wait; wait"
    child = Child(["sh", "-c", script], log=tmp_path / "log")
    inner = int(child.wait_for_line(r"^inner (\d+)$")[1])
    assert child.stop(grace_seconds=0.1) == -signal.SIGKILL
    wait_until_gone(inner)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import pathlib, time\n"
        "from nexus_devtools.backends import SimulatedProcess\n"
        f"sim = SimulatedProcess(log=pathlib.Path({str(tmp_path / 'log')!r})).start()\n"
        "print(sim.child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        os.kill(parent.pid, signal.SIGKILL)
    wait_until_gone(pid)
