"""`make demo` does what it says: the real thing, from outside, to its last line and exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

DEMO = [sys.executable, "-m", "nexus_devtools.demo"]


def _environment(state: Path) -> dict[str, str]:
    return os.environ | {"XDG_STATE_HOME": str(state), "NEXUS_TEST_KUBECONFIG": ""}


def _processes_that_mention(text: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if text in command:
                found.append(command)
    return found


def test_the_demo_shows_what_it_claims_and_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = subprocess.run(
        DEMO, env=_environment(tmp_path), capture_output=True, text=True, timeout=300, check=False
    )
    assert demo.returncode == 0, demo.stdout[-4000:] + demo.stderr[-2000:]
    assert "The capital of France is Paris." in demo.stdout
    assert "failures that clients saw         0" in demo.stdout
    assert demo.stdout.count("[ok]") == 6
    assert _processes_that_mention(str(tmp_path)) == []


def test_ctrl_c_during_set_up_leaves_nothing_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        DEMO,
        env=_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "simulated backends" in line:
                break
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=60)
    assert demo.returncode != 0
    deadline = time.monotonic() + 10
    while left := _processes_that_mention(str(tmp_path)):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
