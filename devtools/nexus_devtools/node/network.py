"""The cluster's network: a bridge on the host, a network namespace per node, routes between them.

Everything of a node stays in its namespace: its bridge, its iptables rules, its pods' addresses.
The host gets a bridge and two routes, so that it reaches pods and Services; it forwards nothing,
and so nothing leaves. `take_down` removes what `put_up` made, in whatever state that is.
"""

from __future__ import annotations

from collections.abc import Sequence

from nexus_devtools.node.commands import run, succeeds
from nexus_devtools.node.layout import (
    MOST_NODES,
    NAMESPACES,
    NodePlace,
    Site,
    places,
    site,
)


def inside(place: NodePlace) -> tuple[str, ...]:
    """The beginning of a command that runs in the node's network.

    Not `ip netns exec`: that mounts /sys anew, and the cgroups are out of sight.
    """
    return ("nsenter", f"--net={NAMESPACES / place.netns}")


def put_up(nodes: Sequence[NodePlace]) -> None:
    """Make it, or complete what is there."""
    here = nodes[0].site
    _bridge(here)
    for place in nodes:
        _connect(place)
    for place in nodes:
        _route(place, nodes)
    reached = [(here.service_range, nodes[0]), *((place.pods, place) for place in nodes)]
    for addresses, place in reached:
        run("ip", "route", "replace", addresses, "via", place.address, "dev", here.bridge)


def _bridge(here: Site) -> None:
    if not succeeds("ip", "link", "show", here.bridge):
        run("ip", "link", "add", here.bridge, "type", "bridge")
    run("ip", "address", "replace", f"{here.host_address}/24", "dev", here.bridge)
    run("ip", "link", "set", here.bridge, "up")


def _connect(place: NodePlace) -> None:
    if not (NAMESPACES / place.netns).exists():
        run("ip", "netns", "add", place.netns)
    if not succeeds("ip", "link", "show", place.link):
        peer = ("peer", "name", "eth0", "netns", place.netns)
        run("ip", "link", "add", place.link, "type", "veth", *peer)
    run("ip", "link", "set", place.link, "master", place.site.bridge, "up")
    node = inside(place)
    run(*node, "ip", "link", "set", "lo", "up")
    run(*node, "ip", "address", "replace", f"{place.address}/24", "dev", "eth0")
    run(*node, "ip", "link", "set", "eth0", "up")
    run(*node, "sysctl", "-qw", "net.ipv4.ip_forward=1")


def _route(place: NodePlace, nodes: Sequence[NodePlace]) -> None:
    node = inside(place)
    # Without it a Service's address has no route, and the rules that translate it never see it.
    run(*node, "ip", "route", "replace", "default", "via", place.site.host_address)
    for other in nodes:
        if other != place:
            run(*node, "ip", "route", "replace", other.pods, "via", other.address)


def cut(place: NodePlace) -> None:
    """Pull the node's cable: it runs on, and nothing reaches it or comes from it."""
    run("ip", "link", "set", place.link, "down")


def mend(place: NodePlace) -> None:
    """Put the cable back."""
    run("ip", "link", "set", place.link, "up")


def take_down() -> None:
    """Remove all of it; what is not there is no error."""
    for place in places(MOST_NODES):
        if (NAMESPACES / place.netns).exists():
            run("ip", "netns", "delete", place.netns)
        succeeds("ip", "link", "delete", place.link)
    succeeds("ip", "link", "delete", site().bridge)


def remains() -> list[str]:
    """What is there of it: links, namespaces, routes."""
    here, nodes = site(), places(MOST_NODES)
    found = [f"network namespace {p.netns}" for p in nodes if (NAMESPACES / p.netns).exists()]
    links = (here.bridge, *(place.link for place in nodes))
    found += [f"link {link}" for link in links if succeeds("ip", "link", "show", link)]
    routes = run("ip", "route", "show").splitlines()
    ranges = (here.pod_range, here.service_range, *(place.pods for place in nodes))
    return found + [f"route {route}" for route in routes if route.split()[0] in ranges]
