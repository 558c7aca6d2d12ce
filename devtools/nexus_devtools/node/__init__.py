"""A whole Kubernetes for tests and for trying things: the control plane, nodes, DNS, real pods.

For Linux as root. It is no distribution: it is made to be thrown away.
"""
