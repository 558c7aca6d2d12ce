"""Every case of the conformance suite, against this proxy and against nginx."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus_devtools.authority import Authority
from nexus_devtools.conformance.case import Case, Step
from nexus_devtools.conformance.oracle import find_nginx
from nexus_devtools.conformance.sides import Entrance, against_nginx, against_proxy
from nexus_devtools.conformance.tables import TABLES
from nexus_proxy.http.listener import Listener
from nexus_proxy.http.tls import ListenerTls

CASES = [
    pytest.param(case, id=f"{table}: {case.name}")
    for table, cases in TABLES.items()
    for case in cases
]
# TLS has no half-closed connections, and hands data over in records: what is known of the peer at
# one read differs.
NOT_OVER_TLS = {"a chunk extension without end"}
CASES_OVER_TLS = [
    pytest.param(case, id=f"{table}: {case.name}")
    for table, cases in TABLES.items()
    for case in cases
    if case.name not in NOT_OVER_TLS and Step.HALF_CLOSE not in case.sends
]


@pytest.fixture(scope="module")
def entrance(tmp_path_factory: pytest.TempPathFactory) -> Entrance:
    """A way in by TLS."""
    authority = Authority()
    certificate = authority.issue("127.0.0.1").write(tmp_path_factory.mktemp("tls"))
    return Listener(ListenerTls(*certificate)), authority.client_context()


@pytest.mark.parametrize("case", CASES)
async def test_the_proxy_does_as_recorded(case: Case) -> None:
    assert await against_proxy(case) == case.proxy


@pytest.mark.parametrize("case", CASES_OVER_TLS)
async def test_the_proxy_does_the_same_over_tls(case: Case, entrance: Entrance) -> None:
    assert await against_proxy(case, entrance=entrance) == case.proxy


@pytest.mark.parametrize("case", CASES)
async def test_nginx_does_as_recorded(case: Case, tmp_path: Path) -> None:
    nginx = find_nginx()
    assert nginx is not None
    assert await against_nginx(case, nginx, tmp_path) in case.recorded_of_nginx


def test_every_difference_is_explained_and_nothing_else() -> None:
    for table, cases in TABLES.items():
        for case in cases:
            assert (case.nginx is None) == (not case.why), f"{table}: {case.name}"
            assert case.nginx != case.proxy, f"{table}: {case.name}"


def test_there_are_at_least_sixty_cases_with_names_of_their_own() -> None:
    names = [(table, case.name) for table, cases in TABLES.items() for case in cases]
    assert len(names) == len(set(names)) >= 60
