"""The parent's side of serving: workers instead of a gateway, looking like one to the application.

Promises that workers know what the parent knows within a few milliseconds, that what one of them
tells reaches the others' breakers and limits, and that a drain ends when all of them have told
everything. What their numbers come to is `fleet`'s business, their processes are `post`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as chance
from collections.abc import Callable, Iterator, Sequence

from msgspec import structs
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nexus_api import LLMBackend
from nexus_proxy import metric_names as names
from nexus_proxy.clock import boot_clock
from nexus_proxy.control import Shared
from nexus_proxy.core import Core
from nexus_proxy.counters import Counters
from nexus_proxy.http.gateway import LAST_WORDS_SECONDS
from nexus_proxy.secrets import FileSecrets, SecretSource
from nexus_proxy.workers.fleet import Fleet
from nexus_proxy.workers.outlook import Outlook
from nexus_proxy.workers.post import Post
from nexus_proxy.workers.sockets import Listeners
from nexus_proxy.workers.wire import Abort, Batch, Down, Peers, Stop, Up
from nexus_quality.peers import Sight
from nexus_quality.policy import Policy
from nexus_quality.shared import SharedVerdict

GRACE_SECONDS = 5.0


class Crew(Collector):
    """`workers` processes that serve as one proxy, started with the parent's own `arguments`."""

    def __init__(
        self,
        *,
        workers: int,
        arguments: Sequence[str],
        secrets: SecretSource,
        counters: Counters,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self.port = 0
        self._workers = workers
        self._arguments = arguments
        self._secrets = secrets
        self._counters = counters
        self._clock = clock
        self._outlook = Outlook(workers)
        self._posts: list[Post] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._soon: asyncio.Handle | None = None
        self._stop: Stop | None = None
        self._news = False
        self._answered = clock()
        self._core: Core
        self._fleet: Fleet

    def attach(self, core: Core) -> None:
        """The parent's own monitor, router and control, which know the world."""
        self._core = core
        self._fleet = Fleet(core, self._counters)
        core.monitor.tell = self._tell_all
        core.router.woken = self._moved

    def noting(self, shared: Shared) -> Shared:
        """The same verdicts, of which the workers hear."""

        def noted(backend: LLMBackend, policy: Policy, now: float) -> SharedVerdict:
            said = shared(backend, policy, now)
            self._outlook.verdicts[backend.metadata.uid] = said
            self._moved()
            return said

        return noted

    async def start(self, host: str, port: int) -> None:
        """Listen, and start the workers. Raises OSError if it cannot listen."""
        listeners = Listeners(host, port)
        self.port = listeners.port
        self._posts = [
            Post(
                number + 1,
                self._arguments,
                listeners,
                self,
                clock=self._clock,
                random=chance.random,
            )
            for number in range(self._workers)
        ]
        self._tasks = [asyncio.create_task(post.run()) for post in self._posts]

    def tick(self, now: float) -> None:
        """Once a second."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()
        for post in self._posts:
            post.tick(now)
        self._fleet.tick()
        answered = self._core.monitor.answered
        if answered != self._answered:
            self._answered = answered
            self._tell_all(Peers(answered=answered))
        self._stir()

    def lacking(self) -> str:
        """What keeps all of them from serving, "" if nothing does."""
        missing = [post.number for post in self._posts if not post.serving]
        if not missing:
            return ""
        which = ", ".join(map(str, missing))
        return f"waiting for worker {which} of {self._workers} to serve"

    def pids(self) -> list[int]:
        """The processes of the workers that run."""
        return [pid for post in self._posts if (pid := post.pid) is not None]

    def describe(self) -> Iterator[Metric]:
        """Nothing: the registry need not look at registration."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """What there is to say of workers."""
        serving = sum(post.serving for post in self._posts)
        yield GaugeMetricFamily(names.WORKERS, "Worker processes that serve", value=serving)
        restarts = sum(post.restarts for post in self._posts)
        text = "Workers started again because they ended"
        yield CounterMetricFamily(names.WORKER_RESTARTS, text, value=restarts)
        text = "Requests by the worker that served them, since it was started"
        served = CounterMetricFamily(names.WORKER_REQUESTS, text, labels=("worker",))
        for post in self._posts:
            if post.hand is not None:
                count = sum(n for _, _, n in post.hand.tally.requests)
                served.add_metric((str(post.number),), count)
        yield served

    async def drain(self, timeout: float) -> bool:
        """Accept nothing more, let running requests finish; True when every one could."""
        await self._end(Stop(timeout), timeout + LAST_WORDS_SECONDS + GRACE_SECONDS)
        return all(post.whole for post in self._posts)

    async def cut_short(self) -> None:
        """End everything now; a worker that does not is killed."""
        for post in self._posts:
            post.send(Abort())
        await self._end(Stop(0.0), LAST_WORDS_SECONDS + GRACE_SECONDS)
        for post in self._posts:
            post.kill()
        await self._end(Stop(0.0), GRACE_SECONDS)

    async def _end(self, stop: Stop, seconds: float) -> None:
        self._stop = stop
        for post in self._posts:
            post.retire()
            post.send(stop)
        await asyncio.wait(self._tasks, timeout=seconds)

    # What happens to the workers

    def began(self, post: Post) -> None:
        """A worker was started: it is told of the world as soon as there is one."""
        self._stir()
        if self._stop is not None:
            post.send(self._stop)

    def ended(self, post: Post) -> None:
        """A worker is gone."""
        if post.hand is not None:
            hand, post.hand = post.hand, None
            self._fleet.leave(hand)
            for seen in hand.left(self._clock()):
                self._saw(seen, but=post)
            self._stir()

    def heard(self, post: Post, message: Up) -> None:
        """A worker told something."""
        if post.hand is None:
            return
        if isinstance(message, Sight):
            seen = structs.replace(message, by=post.number)
            post.hand.saw(seen)
            self._saw(seen, but=post)
        elif isinstance(message, Batch):
            self._fleet.take(post.hand, message, self._clock())
            self._stir()

    def _saw(self, seen: Sight, *, but: Post) -> None:
        self._core.monitor.hear(seen, self._clock())
        self._tell_all(seen, but=but)

    def _welcome(self, post: Post) -> None:
        post.send(self._outlook.whole())
        post.hand = self._fleet.join()
        self._stir()

    def _tell_all(self, message: Down, *, but: Post | None = None) -> None:
        for post in self._posts:
            if post is not but and post.hand is not None:
                post.send(message)

    def _moved(self) -> None:
        """The world may have changed."""
        self._news = True
        self._stir()

    def _stir(self) -> None:
        """Something may have changed that the workers must know."""
        if self._soon is None:
            with contextlib.suppress(RuntimeError):  # before the loop runs there is nobody to tell
                self._soon = asyncio.get_running_loop().call_soon(self._spread)

    def _spread(self) -> None:
        self._soon = None
        if not self._core.router.ready:
            return
        if self._news:
            self._spread_world()
        for post in self._posts:
            if post.hand is None and post.there:
                self._welcome(post)
        for hand, peers in self._fleet.peers(self._clock()):
            for post in self._posts:
                if post.hand is hand:
                    post.send(peers)

    def _spread_world(self) -> None:
        self._news = False
        control = self._core.control
        secrets = self._secrets.all() if isinstance(self._secrets, FileSecrets) else None
        world = self._outlook.news(control.objects, secrets, control.budget)
        if world is not None:
            self._fleet.forget(world.gone)
            self._tell_all(world)
