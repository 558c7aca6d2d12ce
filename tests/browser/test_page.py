"""The operator's page in a real Chromium: it loads, follows, survives, and is worked by keys."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from nexus_api import decode_backend
from nexus_devtools.browser import Tab
from nexus_devtools.page_stand import NAMESPACES, Stand, name, uid

LIVE = "document.getElementById('link').dataset.state === 'live'"
ROWS = "document.querySelectorAll('#rows tr').length"
FOCUSED = "document.activeElement.textContent"
NAMES = "[...document.querySelectorAll('#rows td.of-name a')].map((a) => a.textContent)"


def row(number: int) -> str:
    return f"document.querySelector('#rows [data-uid={uid(number)}]')"


def state(number: int) -> str:
    return f"{row(number)}?.querySelector('.state').textContent"


async def look(tab: Tab, stand: Stand, *, path: str = "/", rows: int = 12) -> None:
    """Loads the page and waits until it shows all there is."""
    await tab.goto(f"http://127.0.0.1:{stand.port}{path}")
    await tab.until(f"{LIVE} && {ROWS} === {rows}")


async def test_it_loads_from_its_own_server_alone_and_without_an_error(
    tab: Tab, stand: Stand
) -> None:
    await look(tab, stand)
    assert tab.errors == []
    own = f"http://127.0.0.1:{stand.port}/"
    assert tab.requests and {url for url in tab.requests if not url.startswith(own)} == set()
    said = await tab.run(f"{row(0)}.textContent")
    line = stand.board.detail(NAMESPACES[0], name(0))
    assert line is not None and line.row.error_rate and line.row.requests
    for shown in (name(0), "Active", line.row.error_rate, f"{line.row.requests:,}"):
        assert shown in said
    told = await tab.run(f"{row(0)}.querySelector('svg.spark').getAttribute('aria-label')")
    assert "requests" in told and "at most" in told


async def test_a_verdict_is_on_the_page_within_two_seconds(tab: Tab, stand: Stand) -> None:
    await look(tab, stand)
    began = time.monotonic()
    stand.fail(5)
    await tab.until(f"{state(5)} === 'Excluded'", seconds=2)
    assert time.monotonic() - began < 2
    assert "Error rate 100%" in await tab.run(f"{row(5)}.textContent")
    # What is bad is at the top, and what it is is a shape and a word, not a colour.
    assert (await tab.run(NAMES))[0] == name(5)
    shapes = f"[{row(5)}, {row(6)}].map((tr) => tr.querySelector('.state path').getAttribute('d'))"
    bad, good = await tab.run(shapes)
    assert bad != good
    assert tab.errors == []


async def test_it_survives_the_operators_restart(tab: Tab, stand: Stand) -> None:
    await look(tab, stand)
    await stand.stop()
    await tab.until("document.getElementById('link').dataset.state === 'lost'")
    assert await tab.run(ROWS) == 12  # what was known stays readable
    await stand.restart()
    await tab.until(LIVE)
    stand.fail(7)
    await tab.until(f"{state(7)} === 'Excluded'", seconds=2)
    # That a server is away the browser says by itself.
    assert [error for error in tab.errors if "net::ERR_" not in error] == []


async def test_a_full_house_is_tried_again(tab: Tab, stand: Stand) -> None:
    stand.board.feed.close()
    await tab.goto(f"http://127.0.0.1:{stand.port}/")
    await tab.until("document.getElementById('link').dataset.state === 'lost'")
    await stand.restart()
    await tab.until(f"{LIVE} && {ROWS} === 12")


async def test_one_backend_says_how_it_came_to_be_so_and_follows(tab: Tab, stand: Stand) -> None:
    stand.fail(0)
    await look(tab, stand, path=f"/#/backend/{NAMESPACES[0]}/{name(0)}")
    moments = (
        "[...document.querySelectorAll('#backend .timeline .state')].map((e) => e.textContent)"
    )
    await tab.until(f"({moments}).length")
    assert "Excluded" in await tab.run(moments)
    text = await tab.run("document.getElementById('backend').textContent")
    for said in ("Latest exclusion", "Conditions", "WithinPolicy", "ShortWindow", "http://"):
        assert said in text
    stand.suspend(0)
    await tab.until(f"({moments})[0] === 'Suspended'", seconds=3)
    assert tab.errors == []


async def test_policies_say_what_they_match_and_what_a_month_costs(tab: Tab, stand: Stand) -> None:
    await look(tab, stand, path="/#/policies")
    text = await tab.until("document.getElementById('policies').textContent")
    for said in ("tier=gold", "would: vllm-000, vllm-015", "391.27 USD in 2026-11", "SoftLimit"):
        assert said in text
    await tab.run("document.querySelector('#policies a').click()")
    matched = "[...document.querySelectorAll('#policy tbody tr')].map((tr) => tr.textContent)"
    await tab.until(f"({matched}).length")
    gold = [number for number in range(12) if number % 3 == 0 and number % 5 == 0]
    assert await tab.run(matched) == [f"{name(number)}Activethis policy" for number in gold]
    assert tab.errors == []


async def test_names_and_messages_are_text_whatever_they_hold(tab: Tab, stand: Stand) -> None:
    markup = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Active",
        "message": markup,
        "lastTransitionTime": "2026-11-24T00:00:00Z",
    }
    backend = {
        "metadata": {"name": "odd", "namespace": "chat", "uid": "uid-odd", "generation": 1},
        "spec": {"url": "http://odd.example", "type": "vllm"},
        "status": {"state": "Active", "conditions": [condition], "qualityPolicy": markup},
    }
    stand.desk.see(decode_backend(backend))
    await look(tab, stand, path="/#/backend/chat/odd", rows=13)
    await tab.until("document.getElementById('backend').textContent.includes('<b>bold</b>')")
    assert await tab.run("document.querySelectorAll('main b, main img').length") == len(
        await tab.run("[...document.querySelectorAll('#states b')]")
    )
    assert await tab.run("document.title") == "odd · Nexus"
    assert tab.errors == []


async def test_nothing_inline_would_run_even_if_it_got_in(tab: Tab, stand: Stand) -> None:
    await look(tab, stand)
    refused = await tab.run(
        "(() => { try { document.body.innerHTML = '<b>x</b>'; } catch (error) "
        "{ return error.name; } return 'taken'; })()"
    )
    assert refused == "TypeError"


async def test_five_hundred_backends_are_filtered_sorted_and_walked_by_keys(
    tab: Tab, empty: Stand
) -> None:
    stand = empty
    stand.fleet(500)
    for number in (42, 137):
        stand.fail(number)
    await stand.start()
    await look(tab, stand, rows=500)
    await tab.press("/")
    await tab.until("document.activeElement.id === 'filter'")
    await tab.type("openai -excluded")
    await tab.until("document.getElementById('shown').textContent === '98 of 500 backends'")
    await tab.press("Enter")
    first, second = (await tab.run(NAMES))[:2]
    assert await tab.run(FOCUSED) == first
    assert await tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for key, at in (("j", second), ("k", first), ("ArrowDown", second), ("ArrowUp", first)):
        await tab.press(key)
        assert await tab.run(FOCUSED) == at
    await tab.press("j")
    await tab.press("Enter")
    await tab.until(f"document.querySelector('#backend h2')?.textContent.endsWith('/{second}')")
    await tab.press("Escape")
    await tab.until("!document.getElementById('backends').hidden")
    assert await tab.run(FOCUSED) == second  # back where one was
    await tab.press("Escape")
    await tab.until("document.getElementById('shown').textContent === '500 of 500 backends'")
    assert set((await tab.run(NAMES))[:2]) == {name(42), name(137)}
    sort = "document.querySelector('button[data-column=requests]').click()"
    await tab.run(sort)
    numbers = (
        "[...document.querySelectorAll('#rows tr')]"
        ".map((tr) => Number(tr.children[7].textContent.replaceAll(',', '')))"
    )
    down = await tab.run(numbers)
    assert down == sorted(down, reverse=True) and down[0] > down[-1]
    await tab.run(sort)
    assert await tab.run(numbers) == sorted(down)
    header = "document.querySelector('button[data-column=requests]').parentElement"
    assert await tab.run(f"{header}.getAttribute('aria-sort')") == "ascending"
    assert tab.errors == []


async def test_a_change_does_not_take_the_focus_away(tab: Tab, stand: Stand) -> None:
    await look(tab, stand)
    for _ in range(3):
        await tab.press("j")
    before = await tab.run(FOCUSED)
    stand.fail(11)  # which moves to the top
    await tab.until(f"({NAMES})[0] === '{name(11)}'")
    assert await tab.run(FOCUSED) == before


async def test_both_themes_by_the_system_and_by_hand(tab: Tab, stand: Stand) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    await tab.prefer("light")
    await look(tab, stand)
    light = await tab.run(ground)
    await tab.prefer("dark")
    dark = await tab.run(ground)
    assert light != dark
    click = "document.getElementById('theme').click()"
    await tab.run(click)
    assert await tab.run(ground) == light  # by hand, against the system
    await look(tab, stand)
    assert await tab.run(ground) == light  # and it is remembered
    await tab.run(click)
    assert await tab.run(ground) == dark
    assert await tab.run("document.getElementById('theme').textContent") == "Theme: dark"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_is_readable_in_both_themes(tab: Tab, stand: Stand, scheme: str) -> None:
    stand.fail(1)
    stand.suspend(2)
    await tab.prefer(scheme)
    await look(tab, stand)
    low = await tab.run(Path(__file__).with_name("contrast.js").read_text("utf-8"))
    assert low == []


async def test_it_works_below_any_path(tab: Tab, empty: Stand) -> None:
    stand = empty
    stand.fleet(2)
    await stand.start("/tools/nexus")
    await look(tab, stand, path="/tools/nexus/", rows=2)
    stand.fail(1)
    await tab.until(f"{state(1)} === 'Excluded'", seconds=2)
    await tab.run("document.querySelector('#rows a').click()")
    await tab.until("!!document.querySelector('#backend .timeline')")
    assert tab.errors == []


async def test_one_that_does_not_lead_says_so(tab: Tab, stand: Stand) -> None:
    stand.leading("standing by: nexus-operator-0 leads", leads=False)
    await look(tab, stand)
    notice = "document.getElementById('notice')"
    assert await tab.run(f"!{notice}.hidden")
    said = await tab.run(f"{notice}.textContent")
    assert "does not lead" in said and "nexus-operator-0 leads" in said
    stand.leading()
    await tab.until(f"{notice}.hidden")


async def test_a_hidden_tab_gives_its_place_back_and_begins_anew_when_looked_at(
    tab: Tab, stand: Stand
) -> None:
    await look(tab, stand)
    hide = (
        "window.late = window.setTimeout;"
        "window.setTimeout = (work, ms) => window.late(work, Math.min(ms, 50));"
        "Object.defineProperty(document, 'hidden', { get: () => window.away });"
        "window.away = true; document.dispatchEvent(new Event('visibilitychange'))"
    )
    await tab.run(f"void ({hide.replace(';', ',')})")
    await tab.until("document.getElementById('link').dataset.state === 'paused'")
    for number in range(12):
        stand.suspend(number)  # what is sent to nobody is how the operator notices
        await asyncio.sleep(0.6)
        if not len(stand.board.feed):
            break
    assert len(stand.board.feed) == 0
    await tab.run(
        "void (window.away = false, document.dispatchEvent(new Event('visibilitychange')))"
    )
    await tab.until(f"{LIVE} && {state(0)} === 'Suspended'")
    assert tab.errors == []


async def test_a_backend_that_is_deleted_leaves(tab: Tab, stand: Stand) -> None:
    await look(tab, stand)
    stand.remove(4)
    await tab.until(f"{ROWS} === 11 && !{row(4)}", seconds=2)
