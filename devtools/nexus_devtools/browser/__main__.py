"""`python -m nexus_devtools.browser`: draws the pictures of docs/page.md, of a made-up fleet.

Promises both themes and each view, in PNG files below docs/images. It is NOT a test: those look at
the same page in the same browser, in tests/browser.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from msgspec.structs import replace

from nexus_api import decode_backend
from nexus_api.quantities import format_time
from nexus_devtools.browser.chromium import BrowserError, ready_chromium
from nexus_devtools.browser.drive import Tab, browsing
from nexus_devtools.page_stand import NAMESPACES, Stand, name, uid
from nexus_devtools.realworld.errors import RealWorldError
from nexus_devtools.realworld.lab import REPOSITORY

IMAGES = REPOSITORY / "docs" / "images"
FLEET = 96
BAD, SUSPENDED, PROBED, UNREACHED = 15, 8, 27, 40
LIVE = "document.getElementById('link').dataset.state === 'live'"


def fleet() -> Stand:
    """Most are well; one of each that is not."""
    stand = Stand()
    stand.fleet(FLEET)
    stand.policies()
    now = time.time()
    ready = _said("Ready", "True", "Probation", "Probation: a few requests are sent to it", now - 9)
    within = _said(
        "WithinPolicy",
        "False",
        "AwaitingProbe",
        "Probation: no request has been answered yet; 2 successes end it",
        now - 310,
    )
    out = {
        "rule": "ErrorRate",
        "startTime": format_time(now - 310),
        "untilTime": format_time(now - 10),
        "reason": "Error rate 61.54% of the last hour (40 of 65) reaches the threshold 50%",
        "count": 3,
        "probationShare": "5%",
    }
    _publish(stand, PROBED, state="Probation", conditions=[ready, within], exclusion=out)
    probe = "GET /health: no answer within 5 s, 3 times in a row; no proxy has a success"
    healthy = _said("Healthy", "False", "ProbeFailed", probe, now - 140)
    _publish(stand, UNREACHED, state="Unhealthy", conditions=[healthy])
    stand.suspend(SUSPENDED)
    stand.fail(BAD)
    return stand


def _said(kind: str, status: str, reason: str, message: str, since: float) -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": format_time(since),
    }


def _publish(stand: Stand, number: int, **status: Any) -> None:
    """Has a backend seen with a status that another process wrote."""
    shelf = stand.desk.registry.backends
    known = shelf.get(uid(number))
    assert known is not None
    told = decode_backend(
        {"metadata": {"name": name(number)}, "spec": {"url": known.spec.url}, "status": status}
    )
    stand.board.timelines.forget(uid(number))
    shelf.put(replace(known, status=told.status))


async def draw() -> None:
    """Writes all pictures."""
    stand = fleet()
    await stand.start()
    IMAGES.mkdir(parents=True, exist_ok=True)
    async with browsing(ready_chromium()) as tab:
        await tab.size(1360, 760)
        for theme in ("light", "dark"):
            await tab.prefer(theme)
            await tab.goto(f"http://127.0.0.1:{stand.port}/")
            await tab.until(LIVE)
            await _settled(tab)
            await tab.picture(IMAGES / f"page-{theme}.png")
        await tab.prefer("light")
        await tab.run(f"void (location.hash = '#/backend/{NAMESPACES[0]}/{name(BAD)}')")
        await tab.until("!!document.querySelector('#backend .timeline')")
        await _settled(tab)
        await tab.picture(IMAGES / "page-backend.png")
        await tab.run("void (location.hash = '#/policies')")
        await tab.until("!!document.querySelector('#policies table')")
        await tab.size(1360, 400)
        await tab.picture(IMAGES / "page-policies.png")
        if tab.errors:
            raise BrowserError("; ".join(tab.errors))
    await stand.stop()


async def _settled(tab: Tab) -> None:
    """Animations are over."""
    await tab.until("document.getAnimations().length === 0")


if __name__ == "__main__":
    try:
        asyncio.run(draw())
    except (BrowserError, RealWorldError) as error:
        sys.exit(f"the page's pictures: {error}")
