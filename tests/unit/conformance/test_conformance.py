"""Every case of the conformance suite, against this proxy and against nginx."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus_devtools.conformance.case import Case
from nexus_devtools.conformance.oracle import find_nginx
from nexus_devtools.conformance.sides import against_nginx, against_proxy
from nexus_devtools.conformance.tables import TABLES

CASES = [
    pytest.param(case, id=f"{table}: {case.name}")
    for table, cases in TABLES.items()
    for case in cases
]


@pytest.mark.parametrize("case", CASES)
async def test_the_proxy_does_as_recorded(case: Case) -> None:
    assert await against_proxy(case) == case.proxy


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
