"""Packages of the npm registry, pinned by version and digest, unpacked into a folder of the cache.

Promises: what is unpacked has the digest that `requirements/npm.txt` names, no script of a package
is ever run, and nothing but the named packages is fetched (they need no others). Which registry is
npm's own business. It is NOT a resolver: `lock` takes the newest of a range and writes the pin.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nexus_devtools.realworld.errors import RealWorldError

WANTED = ("openai@7", "@copilotkit/aimock@1")
HEADER = (
    "# Pinned by `make lock`: packages of the npm registry, with the digests of their archives.\n"
)


@dataclass(frozen=True, slots=True)
class Pin:
    """One package: its name, its exact version, and `sha512-BASE64` of its archive."""

    name: str
    version: str
    integrity: str

    @property
    def line(self) -> str:
        """As it stands in the file."""
        return f"{self.name}@{self.version} {self.integrity}"


def read_pins(text: str) -> tuple[Pin, ...]:
    """The pins of a file's text; raises RealWorldError at a line that is none."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(_pin(line) for line in lines if line and not line.startswith("#"))


def _pin(line: str) -> Pin:
    what, _, integrity = line.partition(" ")
    name, _, version = what.rpartition("@")
    if not name or not version or not integrity.startswith("sha512-"):
        raise RealWorldError(
            f"{line!r} is no pin: write NAME@VERSION sha512-DIGEST, or 'make lock'"
        )
    return Pin(name, version, integrity)


def install(pins: Iterable[Pin], *, npm: Sequence[str], folder: Path) -> None:
    """Fetch each archive with `npm pack`, check it and unpack it to `folder`/NAME."""
    for pin in pins:
        archive = _fetch(pin, npm=npm, folder=folder)
        check(archive.read_bytes(), pin)
        _unpack(archive, folder / pin.name)
        archive.unlink()


def check(archive: bytes, pin: Pin) -> None:
    """Raises RealWorldError if the archive is not the one that was pinned."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != pin.integrity:
        raise RealWorldError(
            f"{pin.name}@{pin.version} has the digest {found}, not {pin.integrity}: "
            "the registry serves another archive; if that is right, run 'make lock'"
        )


def _fetch(pin: Pin, *, npm: Sequence[str], folder: Path) -> Path:
    said = _npm(npm, "pack", f"{pin.name}@{pin.version}", "--json", folder=folder)
    return folder / str(json.loads(said)[0]["filename"])


def _unpack(archive: Path, target: Path) -> None:
    """Every archive of npm has one folder at its top, which takes the package's name."""
    with tarfile.open(archive) as content:
        for member in content.getmembers():
            member.name = member.name.partition("/")[2]
            if member.name:
                content.extract(member, target, filter="data")


def lock(wanted: Sequence[str] = WANTED, *, npm: Sequence[str], folder: Path) -> str:
    """The text of a file that pins the newest version of each package and range in `wanted`."""
    lines = [HEADER]
    for each in wanted:
        said = _npm(npm, "view", each, "name", "version", "dist.integrity", "--json", folder=folder)
        found = json.loads(said)
        newest = found[-1] if isinstance(found, list) else found
        lines.append(Pin(newest["name"], newest["version"], newest["dist.integrity"]).line + "\n")
    return "".join(lines)


def _npm(npm: Sequence[str], *arguments: str, folder: Path) -> str:
    command = [*npm, *arguments, "--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RealWorldError(f"npm {' '.join(arguments[:2])} failed ({last}): check the network")
    return done.stdout
