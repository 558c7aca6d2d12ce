"""Backends of tests, bench and demo: openly simulated ones and a real, small language model."""

from nexus_devtools.backends.app import SimulatedBackend
from nexus_devtools.backends.ledger import LastRequest, Seen
from nexus_devtools.backends.process import Child, ChildError, SimulatedProcess
from nexus_devtools.backends.script import Fault, FaultKind, Script

__all__ = [
    "Child",
    "ChildError",
    "Fault",
    "FaultKind",
    "LastRequest",
    "Script",
    "Seen",
    "SimulatedBackend",
    "SimulatedProcess",
]
