"""The proxy with its hot modules compiled by mypyc: what the same source costs without the
interpreter.

An experiment, not a way to ship: the sources are copied into the benchmarks' cache and the modules
of `HOT` compiled there, once per state of the sources. It takes half a minute and a C compiler.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.bytepath import proxy_command
from bench.rivals import Missing, fetched, run

PACKAGES = ("nexus_api", "nexus_quality", "nexus_proxy")
# Not among them: enums with attributes, what tests replace, what is weakly referred to.
HOT = {
    "nexus_proxy": ("counters",),
    "nexus_proxy/http": (
        *("answer_head", "delivery", "downstream", "exchange", "heads", "incoming", "inspect"),
        *("known", "request_head", "request_reader", "rewrite", "sse", "upstream"),
    ),
    "nexus_proxy/routing": (
        *("board", "candidate", "choice", "leg", "plan", "retry", "router", "score", "strategy"),
    ),
}


def _sources() -> list[Path]:
    folders = []
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise Missing(f"{package} is not installed")
        folders.append(Path(spec.submodule_search_locations[0]))
    return folders


def _state(folders: Sequence[Path]) -> str:
    digest = hashlib.sha256(sysconfig.get_platform().encode())
    for folder in folders:
        for each in sorted(folder.rglob("*.py")):
            digest.update(each.read_bytes())
    return digest.hexdigest()[:12]


def compiled() -> Path:
    """A folder with the packages, hot modules compiled. Raises Missing."""
    if shutil.which("cc") is None:
        raise Missing("there is no C compiler")
    sources = _sources()

    def build(folder: Path) -> None:
        for source in sources:
            skipped = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / source.name, ignore=skipped)
        files = [f"{package}/{name}.py" for package, names in HOT.items() for name in names]
        environ = ["env", "MYPYPATH=.", "CFLAGS=-O2"]
        run([*environ, sys.executable, "-m", "mypyc", "--strict", *files], folder)
        shutil.rmtree(folder / "build")

    return fetched(f"compiled-{_state(sources)}", build)


def proxy_compiled(folder: Path, port: int, backends: Sequence[int]) -> Sequence[str]:
    """The whole proxy, compiled."""
    own = compiled()
    command = proxy_command(folder, port, backends)
    return ["env", f"PYTHONPATH={own}", *command]
