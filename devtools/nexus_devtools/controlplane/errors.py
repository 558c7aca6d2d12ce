"""The one error of the control plane tool: a single line that says what to do."""

from __future__ import annotations


class ControlPlaneError(RuntimeError):
    """Something a person must know or mend; ``str()`` is fit for a terminal as it is."""
