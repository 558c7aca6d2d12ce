"""Running the machine's own programs: quietly, and with their last words when they fail."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from nexus_devtools.node.errors import NodeError


def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: str | None = None,
) -> str:
    """Its standard output; a failure is a NodeError with the last line it wrote."""
    done = subprocess.run(
        [str(each) for each in command],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=cwd,
        input=input,
    )
    if done.returncode:
        raise NodeError(f"{_short(command)}: {_last(done.stderr) or _last(done.stdout)}")
    return done.stdout


def succeeds(*command: str | Path) -> bool:
    """Whether it ended with 0; what it says is thrown away."""
    return (
        subprocess.run([str(each) for each in command], capture_output=True, check=False).returncode
        == 0
    )


def _short(command: Sequence[str | Path]) -> str:
    return " ".join(str(each) for each in command[:4])


def _last(text: str) -> str:
    return ([line.strip() for line in text.splitlines() if line.strip()] or [""])[-1]
