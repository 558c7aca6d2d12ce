"""All cases, by topic."""

from __future__ import annotations

from nexus_devtools.conformance import answers, connections, requests

TABLES = {
    "framing of requests": requests.FRAMING,
    "smuggling": requests.SMUGGLING,
    "targets": requests.TARGETS,
    "headers and limits": requests.HEADERS,
    "framing of answers": answers.FRAMING,
    "interim answers": answers.INTERIM,
    "dangerous answers": answers.DANGEROUS,
    "breaks": answers.BREAKS,
    "keeping": connections.KEEPING,
    "pipelining": connections.PIPELINING,
    "expecting": connections.EXPECTING_CASES,
    "leaving": connections.LEAVING,
    "slow peers": connections.SLOW,
    "stale connections": connections.STALE,
    "streams": connections.STREAMS,
    "early answers": connections.EARLY,
}
