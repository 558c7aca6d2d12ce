"""The page at `/`: what the operator knows, for a person to look at, live and read-only.

Promises that looking costs nothing while nobody looks, that what it shows is what status, metrics
and `/v1/stats` are made of, and that no trouble of the page's is the operator's. It decides
nothing, writes nothing, and asks nobody who they are: the network is its fence.
"""
