"""The one error of this package; its message is one line that says what to do."""

from __future__ import annotations


class RealWorldError(RuntimeError):
    """Clients or servers could not be made ready."""
