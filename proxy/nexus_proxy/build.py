"""Which build this is: its hot modules compiled to machine code, or all of it interpreted.

Promises to say what runs, not what was installed. The two differ in speed alone.
"""

from __future__ import annotations

import platform
from types import FunctionType

from nexus_proxy.http.exchange import Exchange

COMPILED, PURE = "compiled", "pure"


def build() -> str:
    """`compiled` or `pure`."""
    start: object = Exchange.start
    return PURE if isinstance(start, FunctionType) else COMPILED


def described() -> str:
    """Name, version, build and Python, in one line."""
    # A megabyte that a proxy at work has no use for.
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("nexus-kubernetes")
    except PackageNotFoundError:
        number = "of a source tree"
    return f"nexus-proxy {number} ({build()}, Python {platform.python_version()})"
