"""Backends of tests, bench and demo: openly simulated ones and a real, small language model."""

from nexus_devtools.backends.app import SimulatedBackend
from nexus_devtools.backends.ledger import LastRequest, Seen
from nexus_devtools.backends.model_process import ModelProcess
from nexus_devtools.backends.process import Child, ChildError
from nexus_devtools.backends.script import Fault, FaultKind, Script
from nexus_devtools.backends.simulated_process import SimulatedProcess

__all__ = [
    "Child",
    "ChildError",
    "Fault",
    "FaultKind",
    "LastRequest",
    "ModelProcess",
    "Script",
    "Seen",
    "SimulatedBackend",
    "SimulatedProcess",
]
