"""The cluster's network: a bridge on the host, a network namespace per node, routes between them.

Everything of a node stays in its namespace: its bridge, its iptables rules, its pods' addresses.
The host gets a bridge and two routes, so that it reaches pods and Services; it forwards nothing,
and so nothing leaves. `take_down` removes what `put_up` made, in whatever state that is.
"""

from __future__ import annotations

from collections.abc import Sequence

from nexus_devtools.node.commands import run, succeeds
from nexus_devtools.node.layout import (
    BRIDGE,
    HOST_ADDRESS,
    MOST_NODES,
    NAMESPACES,
    POD_RANGE,
    SERVICE_RANGE,
    NodePlace,
    places,
)


def inside(place: NodePlace) -> tuple[str, ...]:
    """The beginning of a command that runs in the node's network.

    Not `ip netns exec`: that mounts /sys anew, and the cgroups are out of sight.
    """
    return ("nsenter", f"--net={NAMESPACES / place.netns}")


def put_up(nodes: Sequence[NodePlace]) -> None:
    """Make it, or complete what is there."""
    if not succeeds("ip", "link", "show", BRIDGE):
        run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "replace", f"{HOST_ADDRESS}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    for place in nodes:
        _connect(place)
    for place in nodes:
        _route(place, nodes)
    first = nodes[0]
    run("ip", "route", "replace", SERVICE_RANGE, "via", first.address, "dev", BRIDGE)
    for place in nodes:
        run("ip", "route", "replace", place.pods, "via", place.address, "dev", BRIDGE)


def _connect(place: NodePlace) -> None:
    if not (NAMESPACES / place.netns).exists():
        run("ip", "netns", "add", place.netns)
    if not succeeds("ip", "link", "show", place.link):
        peer = ("peer", "name", "eth0", "netns", place.netns)
        run("ip", "link", "add", place.link, "type", "veth", *peer)
    run("ip", "link", "set", place.link, "master", BRIDGE, "up")
    node = inside(place)
    run(*node, "ip", "link", "set", "lo", "up")
    run(*node, "ip", "address", "replace", f"{place.address}/24", "dev", "eth0")
    run(*node, "ip", "link", "set", "eth0", "up")
    run(*node, "sysctl", "-qw", "net.ipv4.ip_forward=1")


def _route(place: NodePlace, nodes: Sequence[NodePlace]) -> None:
    node = inside(place)
    # Without it a Service's address has no route, and the rules that translate it never see it.
    run(*node, "ip", "route", "replace", "default", "via", HOST_ADDRESS)
    for other in nodes:
        if other != place:
            run(*node, "ip", "route", "replace", other.pods, "via", other.address)


def take_down() -> None:
    """Remove all of it; what is not there is no error."""
    for place in places(MOST_NODES):
        if (NAMESPACES / place.netns).exists():
            run("ip", "netns", "delete", place.netns)
        succeeds("ip", "link", "delete", place.link)
    succeeds("ip", "link", "delete", BRIDGE)


def remains() -> list[str]:
    """What is there of it: links, namespaces, routes."""
    nodes = places(MOST_NODES)
    found = [f"network namespace {p.netns}" for p in nodes if (NAMESPACES / p.netns).exists()]
    links = (BRIDGE, *(place.link for place in nodes))
    found += [f"link {link}" for link in links if succeeds("ip", "link", "show", link)]
    routes = run("ip", "route", "show").splitlines()
    ranges = (POD_RANGE, SERVICE_RANGE, *(place.pods for place in nodes))
    return found + [f"route {route}" for route in routes if route.split()[0] in ranges]
