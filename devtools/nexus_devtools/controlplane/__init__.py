"""A real Kubernetes API server for tests and the demo, built once and started without root."""

from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.controlplane.plane import ControlPlane

__all__ = ["ControlPlane", "ControlPlaneError"]
