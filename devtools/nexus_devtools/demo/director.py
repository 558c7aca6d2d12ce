"""Runs the timeline on the stage, and records what happens.

Promises: it ends within the timeline's longest time, and notices when a process of the stage has
ended by itself. It is NOT the judge of what was recorded: that is ``summary``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httpx

from nexus_devtools.backends import Seen
from nexus_devtools.backends.weights import MODEL_NAME
from nexus_devtools.demo import scenario
from nexus_devtools.demo.control import BackendControl, scores
from nexus_devtools.demo.measure import Answer, Chronicle, Outcome, share
from nexus_devtools.demo.processes import DemoError
from nexus_devtools.demo.question import ask
from nexus_devtools.demo.scenario import Step
from nexus_devtools.demo.stage import Stage
from nexus_devtools.demo.traffic import Traffic
from nexus_devtools.demo.view import Frame, View
from nexus_devtools.demo.watch import BackendWatch, Row

_TICK_SECONDS = 0.25
_FRAME_SECONDS = 1.0
_DISCOVERY_SECONDS = 20.0
_BY_STATE = {
    "Excluded": "is left out of routing by every proxy",
    "Probation": "is probed by a few requests",
    "Active": "takes traffic",
    "Unhealthy": "does not answer its probes",
}


class Director:
    """The timeline of one run; afterwards its attributes are what was recorded."""

    def __init__(
        self, stage: Stage, view: View, *, http: httpx.AsyncClient, api: httpx.AsyncClient
    ) -> None:
        self.chronicle = Chronicle()
        self.answer: Answer | None = None
        self.at_exclusion: Seen | None = None
        self.scores: dict[str, dict[str, int]] = {}
        """Scores of the candidates as each step ended."""
        self.began = time.monotonic()
        self._news = asyncio.Event()
        self._stage = stage
        self._view = view
        self._http = http
        self._control = BackendControl(http, stage.simulated)
        self.watch = BackendWatch(api, scenario.NAMESPACE, on_row=self._sighted)
        self.chat, self.questions = self._new_traffic()

    @property
    def outcomes(self) -> list[Outcome]:
        """Every request that has ended."""
        return self.chat.outcomes + self.questions.outcomes

    async def run(self) -> None:
        """Ask the question, then walk through the steps under traffic."""
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self.watch.run())
            await self._ask()
            self.began = time.monotonic()
            traffic = [group.create_task(t.run()) for t in (self.chat, self.questions)]
            drawing = group.create_task(self._draw())
            for step in scenario.STEPS:
                await self._play(step)
            self.chat.stop()
            self.questions.stop()
            await asyncio.wait(traffic)
            drawing.cancel()
            looking.cancel()

    async def keep_going(self) -> None:
        """The same traffic for ever, every backend in its usual condition."""
        for name in self._stage.simulated:
            await self._control.set(name, scenario.PROMPT)
        async with asyncio.TaskGroup() as group:
            for traffic in self._new_traffic(remember=False):
                group.create_task(traffic.run())
            await self._until(lambda: False, at_most=float("inf"))

    def _new_traffic(self, *, remember: bool = True) -> tuple[Traffic, Traffic]:
        proxies = {app: proxy.url for app, proxy in self._stage.proxies.items()}
        chat = Traffic(
            proxies,
            model=scenario.CHAT_MODEL,
            per_second=scenario.REQUESTS_PER_SECOND,
            remember=remember,
        )
        questions = Traffic(
            proxies,
            model=MODEL_NAME,
            per_second=scenario.QUESTIONS_PER_SECOND,
            question=scenario.QUESTION,
            remember=remember,
        )
        return chat, questions

    async def _ask(self) -> None:
        known = (scenario.REAL, scenario.BREAKING, scenario.SLOWING)
        if not await self._until(
            lambda: all(self._has_models(name) for name in known), at_most=_DISCOVERY_SECONDS
        ):
            raise DemoError(
                f"the operator found no models on the backends within {_DISCOVERY_SECONDS:g} s: "
                "see nexus-operator.log"
            )
        proxy = self._stage.proxies[scenario.APPS[0]]
        self._view.say(f"app-one asks the real model: {scenario.QUESTION}")
        for _ in range(8):
            said = await ask(proxy.url, scenario.QUESTION)
            if isinstance(said, Answer):
                self.answer = said
                self._view.say(f'  "{said.text}"   ({said.seconds:.1f} s)')
                self._view.say(f"  X-Nexus-Backend: {said.backend}")
                return
            # The proxy hears of the models a moment after we do.
            await self._until(lambda: False, at_most=0.25)
        self._view.say(f"  no answer: {said}")

    def _has_models(self, name: str) -> bool:
        row = self.watch.rows.get(name)
        return row is not None and bool(row.models)

    async def _play(self, step: Step) -> None:
        self._view.say(step.text)
        for name, script in step.scripts:
            await self._control.set(name, script)
        self.chronicle.began[step.name] = time.monotonic()
        came = await self._until(
            lambda: all(self.chronicle.state(name) == state for name, state in step.awaited),
            at_most=step.at_most_seconds,
        )
        if not came:
            wanted = ", ".join(f"{name} {state}" for name, state in step.awaited)
            self._view.say(f"not within {step.at_most_seconds:g} s: {wanted}")
        if step.name == scenario.BREAKS and came:
            self.at_exclusion = await self._control.seen(scenario.BREAKING)
        await self._until(lambda: False, at_most=step.hold_seconds)
        admin = self._stage.proxies[scenario.APPS[0]].admin_url
        self.scores[step.name] = await scores(self._http, admin, scenario.CHAT_MODEL)
        self.chronicle.ended[step.name] = time.monotonic()

    async def _until(self, holds: Callable[[], bool], *, at_most: float) -> bool:
        """Wait for a condition, looking after the processes; whether it came."""
        deadline = time.monotonic() + at_most
        while not holds():
            self._stage.processes.check()
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._news.clear()
            try:
                async with asyncio.timeout(min(_TICK_SECONDS, left)):
                    await self._news.wait()
            except TimeoutError:
                continue
        return True

    def _sighted(self, row: Row) -> None:
        before = self.chronicle.state(row.name)
        if row.state is None or not self.chronicle.note(row.name, row.state, time.monotonic()):
            return
        self._news.set()
        if before is not None:
            meaning = _BY_STATE.get(row.state, "")
            self._view.say(f"{row.name}: {before} -> {row.state}  {meaning}".rstrip())

    async def _draw(self) -> None:
        while True:
            shares = self._shares(time.monotonic())
            self._view.show(
                Frame(
                    columns=self.watch.columns,
                    rows=[self.watch.rows[name] for name in sorted(self.watch.rows)],
                    shares=shares,
                    footer=self._footer(),
                )
            )
            await asyncio.sleep(_FRAME_SECONDS)
            await self.watch.refresh()

    def _shares(self, now: float) -> dict[str, float | None]:
        """Of the requests for the simulated backends' model; None for those that lack it."""
        window = now - scenario.SHARE_WINDOW_SECONDS
        return {
            row.name: share(self.chat.outcomes[-400:], row.name, start=window, end=now)
            for row in self.watch.rows.values()
            if scenario.CHAT_MODEL in row.models
        }

    def _footer(self) -> str:
        outcomes = self.outcomes
        bad = sum(not outcome.ok for outcome in outcomes)
        retried = sum(outcome.retries > 0 for outcome in outcomes)
        return (
            f"requests {len(outcomes)}   failures that clients saw {bad}   "
            f"answers that took a retry {retried}"
        )
