"""List and watch against a scripted API server: pages, bookmarks, 410, silence, refusals."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

Item = Any


def bookmark(version: int) -> tuple[str, dict[str, Any]]:
    return "BOOKMARK", {"kind": "LLMBackend", "metadata": {"resourceVersion": str(version)}}


async def test_a_list_comes_in_pages_and_counts_when_complete(
    scene: Any, make_item: Item, make_list: Item
) -> None:
    first = make_list(make_item("a"), more="next-page")
    await scene.play(first, make_list(make_item("b"), version=20))
    assert scene.names == ["a", "b"]
    assert scene.store.synced
    assert scene.changes == 1
    assert scene.query(0) == {"limit": "250"}
    assert scene.query(1) == {"limit": "250", "continue": "next-page"}
    assert scene.query(2)["resourceVersion"] == "20"
    assert scene.query(2)["allowWatchBookmarks"] == "true"
    assert 300 <= int(scene.query(2)["timeoutSeconds"]) <= 600
    assert scene.requests[0].url.path == "/apis/nexus.dev/v1alpha1/namespaces/team/llmbackends"


async def test_an_empty_namespace_is_synced_too(scene: Any, make_list: Item) -> None:
    await scene.play(make_list())
    assert scene.store.synced
    assert scene.changes == 1


async def test_events_move_the_store_and_a_resumed_watch_goes_on_from_the_last_version(
    scene: Any, make_item: Item, make_list: Item, make_watch: Item
) -> None:
    events = [
        ("ADDED", make_item("b", 11)),
        ("MODIFIED", make_item("a", 12, priority=7)),
        ("DELETED", make_item("b", 13)),
        bookmark(40),
    ]
    await scene.play(make_list(make_item("a")), make_watch(*events))
    assert scene.names == ["a"]
    assert scene.store.objects["uid-a"].spec.priority == 7
    assert scene.query(2)["resourceVersion"] == "40"
    assert scene.pauses == [0.1]


async def test_an_event_that_changes_nothing_tells_nothing(
    scene: Any, make_item: Item, make_list: Item, make_watch: Item
) -> None:
    again = ("MODIFIED", make_item("a", 5))
    gone = ("DELETED", make_item("never", 6))
    await scene.play(make_list(make_item("a", 5)), make_watch(again, gone))
    assert scene.changes == 1


@pytest.mark.parametrize("way", ["status", "event"])
async def test_410_either_way_leads_to_a_new_list_that_prunes(
    scene: Any, make_item: Item, make_list: Item, make_watch: Item, way: str
) -> None:
    status = {"kind": "Status", "code": 410, "message": "too old resource version"}
    gone = httpx.Response(410, json=status) if way == "status" else make_watch(("ERROR", status))
    before = make_list(make_item("a"), make_item("b"))
    await scene.play(before, gone, make_list(make_item("b"), version=99))
    assert scene.names == ["b"]
    assert scene.query(3)["resourceVersion"] == "99"
    assert scene.pauses == [0.1]


async def test_a_continue_token_that_expired_starts_the_list_again(
    scene: Any, make_item: Item, make_list: Item
) -> None:
    expired = httpx.Response(410, json={"message": "continue token expired"})
    again = make_list(make_item("c"))
    await scene.play(make_list(make_item("a"), more="page"), expired, again)
    assert scene.names == ["c"]


async def test_a_silent_watch_is_resumed_and_keeps_what_was_known(
    scene: Any, make_item: Item, make_list: Item, make_watch: Item
) -> None:
    silent = make_watch(bookmark(30), end=httpx.ReadTimeout("silence"))
    await scene.play(make_list(make_item("a")), silent)
    assert scene.requests[1].extensions["timeout"]["read"] == 70.0
    assert scene.query(2)["resourceVersion"] == "30"
    assert scene.names == ["a"]


async def test_a_torn_watch_is_resumed_from_the_last_version(
    scene: Any, make_item: Item, make_list: Item, make_watch: Item
) -> None:
    torn = make_watch(("ADDED", make_item("b", 21)), end=httpx.RemoteProtocolError("cut"))
    await scene.play(make_list(make_item("a")), torn)
    assert scene.names == ["a", "b"]
    assert scene.query(2)["resourceVersion"] == "21"


async def test_failures_are_retried_with_growing_pauses_that_success_resets(
    scene: Any, make_list: Item
) -> None:
    down = [httpx.ConnectError("refused") for _ in range(12)]
    await scene.play(*down, make_list(), httpx.ConnectError("refused"))
    grown, after = scene.pauses[:12], scene.pauses[12:]
    assert grown == sorted(grown)
    assert grown[0] == pytest.approx(0.15)
    assert grown[-1] == pytest.approx(22.5)
    assert after == [pytest.approx(0.15)]


async def test_watches_that_end_without_a_word_are_no_busy_loop(
    scene: Any, make_list: Item, make_watch: Item
) -> None:
    await scene.play(make_list(), *(make_watch() for _ in range(9)), make_watch(bookmark(50)))
    assert scene.pauses[:9] == sorted(scene.pauses[:9])
    assert scene.pauses[8] == 22.5
    assert scene.pauses[9] == 0.1
    assert scene.store.synced


STRANGE = [{}, {"metadata": {}}, {"metadata": {"resourceVersion": 5}}, {"items": []}, [], "text"]


@pytest.mark.parametrize("strange", STRANGE)
async def test_an_answer_of_another_shape_is_trouble_not_an_end(
    scene: Any, make_list: Item, strange: Any
) -> None:
    await scene.play(httpx.Response(200, json=strange), make_list())
    assert scene.store.synced


async def test_the_same_trouble_is_said_once_and_its_end_too(
    scene: Any, make_list: Item, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    down = [httpx.ConnectError("refused") for _ in range(4)]
    await scene.play(*down, make_list())
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("nexus")]
    assert len(lines) == 2
    assert "cannot reach the API server http://api (from test): refused" in lines[0]
    assert "answers again" in lines[1]


REFUSALS = [
    (401, "does not accept the token"),
    (403, "no right to list and watch llmbackends.nexus.dev in team; to grant it: kubectl -n team"),
    (403, "--resource=llmbackends.nexus.dev,qualitypolicies.nexus.dev,routingpolicies.nexus.dev; "),
    (403, "--role=nexus-proxy --group=system:serviceaccounts:team"),
    (404, "kubectl apply --server-side -f crds/"),
    (500, "the API server answered 500: it broke"),
]


@pytest.mark.parametrize(("status", "said"), REFUSALS)
async def test_a_refusal_says_what_to_do_and_is_retried(
    scene: Any, make_list: Item, caplog: pytest.LogCaptureFixture, status: int, said: str
) -> None:
    await scene.play(httpx.Response(status, json={"message": "it broke"}), make_list())
    assert said in caplog.text
    assert scene.store.synced


async def test_429_waits_at_least_as_long_as_asked(scene: Any, make_list: Item) -> None:
    busy = httpx.Response(429, headers={"retry-after": "7"}, text="busy")
    await scene.play(busy, make_list())
    assert scene.pauses == [7.0]


async def test_a_rotated_token_is_read_for_every_request(
    scene: Any, make_list: Item, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")

    def rotate() -> None:
        token.write_text("new\n")

    scene.access = dataclasses.replace(scene.access, token=None, token_file=token)
    original = scene._sleep

    async def sleep(seconds: float) -> None:
        rotate()
        await original(seconds)

    scene._sleep = sleep
    await scene.play(httpx.Response(401, json={"message": "expired"}), make_list())
    sent = [request.headers["authorization"] for request in scene.requests]
    assert sent[:2] == ["Bearer old", "Bearer new"]


async def test_an_object_that_cannot_be_read_keeps_its_last_version(
    scene: Any, make_item: Item, make_list: Item, make_watch: Item, caplog: pytest.LogCaptureFixture
) -> None:
    bad = make_item("a", 12, priority="high")
    await scene.play(make_list(make_item("a", 5, priority=3)), make_watch(("MODIFIED", bad)))
    assert scene.store.objects["uid-a"].spec.priority == 3
    assert "LLMBackend team/a: spec.priority" in caplog.text


async def test_the_servers_date_is_remembered(scene: Any, make_list: Item) -> None:
    page = make_list()
    page.headers["date"] = "Thu, 01 Jan 2026 00:00:10 GMT"
    assert scene.server_clock.at(scene.now) == 5.0
    await scene.play(page)
    assert scene.server_clock.at(scene.now + 2.5) == 1767225610 + 2.5
