"""The product as a wheel whose hot modules are compiled by mypyc.

`python -m nexus_devtools.compiled` builds it from a copy of the sources: a wheel and the same
unpacked below `dist/compiled`, once per state of the sources. `… compiled MODULE [ARGUMENT ...]`
then runs that module (pytest, say) with it, `… compiled --if-possible MODULE …` passes over both
where it cannot be built. It needs a C compiler. Promises that nothing is written beside the
sources, where it would shadow what is edited later; the interpreted modules stay in the wheel
beside the compiled ones, which Python prefers. What is compiled is the same Python, with types
checked when values come from interpreted code.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "dist" / "compiled"
BUILD_SECONDS = 900

PARTS = ("crds/nexus_api", "quality/nexus_quality", "operator/nexus_operator", "proxy/nexus_proxy")
EXTRAS = ("pyproject.toml", "README.md")
# What every request runs through. Not among them, because mypyc cannot: enums with attributes
# (`routing.endpoint`, `quality.outcome`), what msgspec decodes into (`routing.fields`,
# `pricing.usage`, `quality.spend`), what is weakly referred to (`http.pool`).
HOT = {
    "proxy/nexus_proxy": ("counters",),
    "proxy/nexus_proxy/http": (
        *("answer_head", "delivery", "downstream", "events", "exchange", "gateway", "heads"),
        *("incoming", "inspect", "known", "request_head", "request_reader", "rewrite", "sse"),
        "upstream",
    ),
    "proxy/nexus_proxy/pricing": ("meter",),
    "proxy/nexus_proxy/routing": (
        *("board", "candidate", "choice", "journal", "leg", "plan", "request", "retry", "router"),
        *("score", "strategy"),
    ),
    "quality/nexus_quality": ("keys", "recorder", "subject"),
}
# What every report runs through, in a library of its own: no proxy in a cluster loads it. Not among
# them: what msgspec decodes into (`counts`, `report`), and what proxies import as well.
ENGINE = {
    "quality/nexus_quality": (
        *("absence", "assessment", "attendance", "calm", "docket", "due", "engine", "evidence"),
        *("figures", "firing", "hearing", "journal", "ledger", "levelling", "lives", "remembered"),
        *("reporters", "restoring", "rows", "rules", "sealing", "shares", "sketches", "stall"),
        *("tagged", "taking", "verdict", "verdict_table", "verdicts", "window"),
    ),
    "operator/nexus_operator": ("engine", "testimony"),
}
_HOOK = """
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Compiled(BuildHookInterface):
    def initialize(self, version, build_data):
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"].append("*.so")
        build_data["force_include"].update({each: each for each in %r})
"""


class CannotBuild(Exception):
    """The message says why, in one line."""


def modules() -> Iterator[str]:
    """The names of the compiled modules."""
    for library in (HOT, ENGINE):
        yield from _modules(library)


def _modules(library: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for folder, names in library.items():
        package = folder.partition("/")[2].replace("/", ".")
        yield from (f"{package}.{name}" for name in names)


def compiled() -> Path:
    """The folder with the unpacked wheel, built if the sources have changed; its name is in
    PYTHONPATH for whoever wants it. Raises CannotBuild.
    """
    site, stamp = OUTPUT / "site", OUTPUT / "state"
    state = _state()
    if stamp.exists() and stamp.read_text() == state:
        return site
    _check()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="nexus-compiled-") as folder:
        wheel = _built(Path(folder))
        shutil.copy(wheel, OUTPUT / wheel.name)
    with zipfile.ZipFile(OUTPUT / wheel.name) as packed:
        packed.extractall(site)
    stamp.write_text(state)
    return site


def _state() -> str:
    digest = hashlib.sha256(f"{sys.version}{sysconfig.get_platform()}".encode())
    sources = [Path(__file__), ROOT / "pyproject.toml"]
    for part in PARTS:
        sources += sorted((ROOT / part).rglob("*.py"))
    for each in sources:
        digest.update(each.relative_to(ROOT).as_posix().encode() + each.read_bytes())
    return digest.hexdigest()


def _check() -> None:
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise CannotBuild(f"no C compiler ({compiler}): on Debian and Ubuntu, apt install gcc")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise CannotBuild("no headers of Python: on Debian and Ubuntu, apt install python3-dev")
    if find_spec("mypyc") is None or find_spec("setuptools") is None:
        raise CannotBuild("mypyc or setuptools is missing: make setup installs both")


def _built(folder: Path) -> Path:
    """The wheel, made of a copy of the sources in `folder`."""
    for part in PARTS:
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / Path(part).name, ignore=skipped)
    # Some builds of Python add debugging information, three times as much as there is code.
    flags = {"CFLAGS": "-O2", "LDFLAGS": "-Wl,-S"}
    for library in (HOT, ENGINE):
        files = [each.replace(".", "/") + ".py" for each in _modules(library)]
        _run(["-m", "mypyc", "--strict", *files], folder, MYPYPATH=".", **flags)
        shutil.rmtree(folder / "build")
    for part in PARTS:
        (folder / part).parent.mkdir()
        (folder / Path(part).name).rename(folder / part)
    # Only now: setuptools, which mypyc uses, must not take the project for its own.
    for extra in EXTRAS:
        shutil.copy(ROOT / extra, folder / extra)
    shared = [each.name for each in folder.glob("*.so")]
    (folder / "hatch_build.py").write_text(_HOOK % shared)
    with (folder / "pyproject.toml").open("a") as project:
        project.write("\n[tool.hatch.build.targets.wheel.hooks.custom]\n")
    _run(["-m", "hatchling", "build", "-t", "wheel"], folder)
    return next(folder.glob("dist/*.whl"))


def _run(arguments: Sequence[str], folder: Path, **environ: str) -> None:
    command = [sys.executable, *arguments]
    try:
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True,
            timeout=BUILD_SECONDS, env={**os.environ, **environ},
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr).strip().splitlines() or [""]
        told = [line for line in said if "error" in line.lower()] or said
        raise CannotBuild(f"{arguments[1]} failed: {told[-1]}") from None
    except subprocess.TimeoutExpired:
        raise CannotBuild(f"{arguments[1]} took longer than {BUILD_SECONDS} s") from None


def environment() -> dict[str, str]:
    """The environment in which Python takes the compiled modules. Raises CannotBuild."""
    paths = [str(compiled()), *filter(None, (os.environ.get("PYTHONPATH"),))]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", _LOADED, *modules()]
    subprocess.run(command, check=True, env=environ)
    return environ


_LOADED = """
import sys
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES

loaded = {name: import_module(name).__file__ for name in sys.argv[1:]}
told = [path for path in loaded.values() if not path.endswith(tuple(EXTENSION_SUFFIXES))]
sys.exit(f"not compiled: {told}" if told else 0)
"""


def main(arguments: Sequence[str]) -> None:
    """Build, and run what is asked for or say where it is."""
    if_possible = arguments[:1] == ["--if-possible"]
    arguments = arguments[if_possible:]
    try:
        environ = environment()
    except CannotBuild as error:
        if not if_possible:
            sys.exit(str(error))
        print(f"the compiled build was NOT looked at: {error}")
        return
    if arguments:
        sys.exit(subprocess.run([sys.executable, "-m", *arguments], env=environ).returncode)
    built = next(OUTPUT.glob("*.whl"))
    print(f"{built.relative_to(ROOT)} ({built.stat().st_size // 1024} kB)")
    print(f"the same unpacked: {(OUTPUT / 'site').relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
