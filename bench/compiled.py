"""The proxy with its hot modules compiled by mypyc: what the same source costs without the
interpreter. The build is `nexus_devtools.compiled`'s: half a minute once per state of the sources,
and a C compiler.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.bytepath import proxy_command
from bench.rivals import Missing

from nexus_devtools.compiled import CannotBuild, environment


def proxy_compiled(folder: Path, port: int, backends: Sequence[int]) -> Sequence[str]:
    """The whole proxy, compiled. Raises Missing."""
    try:
        path = environment()["PYTHONPATH"]
    except CannotBuild as error:
        raise Missing(str(error)) from None
    return ["env", f"PYTHONPATH={path}", *proxy_command(folder, port, backends)]
