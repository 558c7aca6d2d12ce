"""The page over HTTP: its files, its headers, its details, and that it is for reading only."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from nexus_devtools.page_stand import Stand, name
from nexus_operator.page.handlers import ASSETS

FILES = ("/", "/page/page.css", "/page/page.js", "/page/icon.svg")
DETAILS = (
    f"/page/backend?namespace=chat&name={name(0)}",
    "/page/policy?namespace=chat&name=gold",
    "/page/backend?namespace=chat&name=nobody",
)


@pytest.mark.parametrize("path", [*FILES, *DETAILS])
async def test_every_answer_has_the_strict_headers(
    client: httpx.AsyncClient, stand: Stand, path: str
) -> None:
    stand.policies()
    answer = await client.get(path)
    policy = dict(
        each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert {policy[f"{each}-src"] for each in ("script", "style", "connect")} == {"'self'"}
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", FILES)
async def test_a_file_that_is_known_is_not_sent_again(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 200 and answer.content
    again = await client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", [*FILES, "/page/events", DETAILS[0]])
async def test_it_is_read_and_nothing_else(client: httpx.AsyncClient, path: str) -> None:
    head = await client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await client.request(method, path)).status_code == 405


async def test_a_backend_or_policy_that_is_not_there_is_a_404_that_says_what_to_ask(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.get("/page/backend?namespace=chat&name=nobody")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": "there is no LLMBackend chat/nobody: give ?namespace=…&name=…"
    }
    assert (await client.get("/page/policy")).status_code == 404


async def test_another_site_cannot_take_a_place_in_the_feed(
    client: httpx.AsyncClient, stand: Stand
) -> None:
    answer = await client.get("/page/events", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert len(stand.board.feed) == 0


def test_no_asset_names_another_place_or_writes_markup() -> None:
    for path in Path(ASSETS).iterdir():
        text = path.read_text("utf-8")
        links = set(re.findall(r"https?://[^\s\"'`]+", text))
        assert links <= {"http://www.w3.org/2000/svg"}, path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r"(href|src)=\"/", text), f"{path}: an absolute address"


def test_the_document_has_nothing_inline() -> None:
    text = (ASSETS / "index.html").read_text("utf-8")
    assert "<style" not in text and " style=" not in text
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"\son[a-z]+=", text)
