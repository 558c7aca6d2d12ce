"""Which version of the product this is, for people to read."""

from __future__ import annotations

from importlib import metadata

DISTRIBUTION = "nexus-kubernetes"


def version() -> str:
    """The installed version; "unknown" where the files alone are there."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"
