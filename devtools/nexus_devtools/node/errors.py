"""The one error of the tool."""

from __future__ import annotations


class NodeError(RuntimeError):
    """It cannot be done; the text says what to do."""
