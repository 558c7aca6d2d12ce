"""What the API server has reaches everything that depends on it, whichever way it came."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nexus_api import decode_backend
from nexus_api.fingerprint import verdict_fingerprint
from nexus_api.meta import BACKEND_PLURAL, QUALITY_POLICY_PLURAL
from nexus_operator.context import Context
from nexus_operator.credentials import Credentials
from nexus_operator.plan import Key
from nexus_operator.settings import Settings

Stored = dict[str, Any]
META = {
    "name": "a",
    "namespace": "shop",
    "uid": "uid-a",
    "resourceVersion": "5",
    "generation": 1,
    "creationTimestamp": "2026-11-24T00:00:00Z",
}
BACKEND = {"metadata": META, "spec": {"url": "http://old.example", "type": "vllm"}}
POLICY = {"metadata": META | {"name": "p", "uid": "uid-p"}, "spec": {"minRequests": 10}}


@pytest.fixture
async def context() -> AsyncIterator[Context]:
    """An operator's parts, at rest."""
    credentials = Credentials(server="http://127.0.0.1:1", origin="test", namespace="shop")
    found = Context(Settings(all_namespaces=True), load=lambda: credentials)
    yield found
    await found.close()


def edited(stored: Stored, version: str, **spec: Any) -> Stored:
    """What somebody made of an object."""
    made = copy.deepcopy(stored)
    made["metadata"] |= {"resourceVersion": version, "generation": 2}
    made["spec"] |= spec
    return made


async def test_an_edit_found_after_a_conflict_is_judged_though_the_watch_brings_it_again(
    context: Context,
) -> None:
    context.observer.see(BACKEND_PLURAL, BACKEND)
    other = edited(BACKEND, "6", url="http://new.example")
    context.planner.reread(Key(BACKEND_PLURAL, "uid-a"), other)
    context.observer.see(BACKEND_PLURAL, other)
    docket = context.engine._backends["uid-a"]
    assert docket.facts.fingerprint == verdict_fingerprint(decode_backend(other).spec)
    assert docket.respecified


async def test_a_policy_found_after_a_conflict_is_in_force_though_the_watch_brings_it_again(
    context: Context,
) -> None:
    context.observer.see(QUALITY_POLICY_PLURAL, POLICY)
    context.observer.see(BACKEND_PLURAL, BACKEND)
    other = edited(POLICY, "6", minRequests=77)
    context.planner.reread(Key(QUALITY_POLICY_PLURAL, "uid-p"), other)
    context.observer.see(QUALITY_POLICY_PLURAL, other)
    assert context.engine.policy("uid-a").min_requests == 77


async def test_an_object_that_a_conflict_shows_to_be_unreadable_is_named_and_left(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    context.observer.see(BACKEND_PLURAL, BACKEND)
    context.planner.reread(Key(BACKEND_PLURAL, "uid-a"), edited(BACKEND, "6", url=7))
    assert "ignored, until it is mended" in caplog.text
