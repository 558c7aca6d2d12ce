"""What is simulated, as data: fleets, faults, durations. The letters are those of the proof plan.

Times are seconds of the measured part, which begins after `shape.warm` seconds of ordinary traffic.
Backend 1, the one in the middle, is the one that breaks: the seed takes the last of equals, and
neither first nor last is favoured. Where a scenario is shorter than its plan, `note` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.simulate.arrivals import Demand, Traffic
from bench.simulate.backends import FIRST_TOKEN_SECONDS, Fault
from bench.simulate.operator import Delays
from bench.simulate.poison import poison, praise
from bench.simulate.simulation import ALONE, NEXUS, POLICIES, Shape, Simulation

from nexus_quality.outcome import Outcome

Change = tuple[float, Callable[[Simulation], None]]
BOTH = (0, 2)
IDLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`bad`: the backends that break; the others should never be left out. `retries`: values of
    maxRetries it is run with; `ends`: when the fault is over.
    """

    name: str
    title: str
    shape: Shape
    faults: tuple[Fault, ...] = ()
    seconds: float = 900.0
    ends: float = 600.0
    bad: tuple[int, ...] = (1,)
    policies: tuple[str, ...] = POLICIES
    retries: tuple[int, ...] = BOTH
    changes: tuple[Change, ...] = ()
    seeds: int | None = None
    note: str = ""


def _broken(outcome: Outcome = Outcome.SERVER_ERROR, **more: object) -> tuple[Fault, ...]:
    return (replace(Fault(outcome=outcome, end=600.0), **more),)  # type: ignore[arg-type]


ONE = Shape(traffic=Traffic(rps=2.0))
FRESH = replace(ONE, warm=0.0)
YOUNG = replace(ONE, warm=60.0)
THREE = Shape(traffic=Traffic(rps=2.0), proxies=3, slots=64, warm=600.0)
SKEWED = replace(THREE, delays=Delays(twice=0.33), skew=5.0, audited=True)
QUIET = {k: Shape(traffic=Traffic(rps=0.02 / k), proxies=k) for k in (1, 3, 10)}
TIGHT = Shape(traffic=Traffic(rps=4.5), slots=9, queue=20, warm=600.0)
MODELS = replace(ONE, traffic=Traffic(rps=2.0, demands=(Demand("m"), Demand("other"))))
MIXED = replace(
    ONE,
    traffic=Traffic(
        rps=2.0,
        demands=(Demand("short", prefill_median=0.3), Demand("long", 1.0, prefill_median=5.0)),
    ),
)
LEAVING = replace(ONE, traffic=Traffic(rps=2.0, leaving=0.3), warm=600.0)
SIDECARS = Shape(traffic=Traffic(rps=0.1), proxies=500, slots=400, warm=300.0)
HALF = Shape(traffic=Traffic(rps=0.5))
POISONED = Shape(traffic=Traffic(rps=0.2), proxies=9, warm=600.0)

DOWN = _broken()


def _operator_away(simulation: Simulation) -> None:
    if simulation.operator is not None:
        simulation.operator.away()


def _operator_back(simulation: Simulation) -> None:
    if simulation.operator is not None:
        simulation.operator.back()


RESTARTS: tuple[Change, ...] = (
    (120.0, _operator_away),
    (180.0, _operator_back),
    (240.0, lambda simulation: simulation.restart_proxy(0, 1)),
)

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(name="A", title="one of three down, 503 in 50 ms, 10 min", shape=ONE, faults=DOWN),
    Scenario(
        name="A0.5", title="A at 0.5 rps", shape=HALF, faults=DOWN, policies=(NEXUS,),
    ),
    Scenario(
        name="B", title="grey: 60 % fail, 10 min", shape=ONE, faults=_broken(share=0.6),
        seconds=1200.0,
    ),
    Scenario(
        name="C", title="hangs, 30 s timeout, 10 min", shape=ONE,
        faults=_broken(Outcome.TIMEOUT, after=30.0),
    ),
    Scenario(
        name="C120", title="answers never come, 10 min", shape=ONE, seconds=1200.0,
        faults=_broken(Outcome.TIMEOUT, after=FIRST_TOKEN_SECONDS),
        note="each fails after firstTokenSeconds, 120",
    ),
    Scenario(
        name="D", title="one unlucky first request", shape=FRESH, faults=_broken(limit=1),
        ends=1.0, note="15 min",
    ),
    Scenario(
        name="Dq", title="D at 0.02 rps", shape=replace(QUIET[1], warm=0.0),
        faults=_broken(limit=1, end=3600.0), seconds=3600.0, ends=1.0, retries=(0,),
    ),
    Scenario(
        name="E", title="all fail 70 %, 10 min, no history", shape=YOUNG,
        faults=_broken(share=0.7, backends=(0, 1, 2)), bad=(0, 1, 2),
    ),
    Scenario(
        name="F", title="first token after 8 s more, 40 min", shape=ONE,
        faults=(Fault(slow=8.0, end=2400.0),), seconds=2700.0, ends=2400.0,
    ),
    Scenario(
        name="G", title="60 s bad, 60 s good, 20 min", shape=ONE,
        faults=(Fault(outcome=Outcome.SERVER_ERROR, end=1200.0, period=120.0),),
        seconds=1500.0, ends=1140.0, note="20 min instead of 30",
    ),
    Scenario(
        name="H", title="down for good, 40 min", shape=ONE, faults=_broken(end=2700.0),
        seconds=2400.0, ends=2700.0, note="40 min instead of 2 h",
    ),
    *(
        Scenario(
            name=f"I{k}", title=f"0.02 rps over {k} proxies, down 1 h", shape=QUIET[k],
            faults=_broken(end=3600.0), seconds=4200.0, ends=3600.0, retries=(0,),
        )
        for k in (1, 3, 10)
    ),
    Scenario(
        name="Ilast", title="I1 where the last backend breaks: all equal, the seed takes the last",
        shape=QUIET[1], faults=_broken(end=3600.0, backends=(2,)), bad=(2,), seconds=4200.0,
        ends=3600.0, retries=(0,),
    ),
    Scenario(
        name="J", title="two of three down, 10 min", shape=ONE, faults=_broken(backends=(0, 1)),
        bad=(0, 1),
    ),
    Scenario(name="K", title="30 % fail, 10 min", shape=ONE, faults=_broken(share=0.3)),
    Scenario(
        name="L", title="down for 15 s", shape=ONE, faults=_broken(end=15.0), seconds=300.0,
        ends=15.0,
    ),
    Scenario(
        name="M", title="A where the two left are too small (2 rps each for 4.5)", shape=TIGHT,
        faults=DOWN, note="full queues answer 429",
    ),
    Scenario(
        name="N", title="no fault, 0.2 % errors, 4 h", shape=YOUNG, seconds=14340.0, bad=(),
        policies=(NEXUS,), retries=(0,),
    ),
    Scenario(
        name="O", title="one of two models fails on one backend", shape=MODELS,
        faults=_broken(models=("m",)),
    ),
    Scenario(
        name="P", title="A over 3 proxies, operator away from 2 to 3 min, a proxy restarts at 4",
        shape=THREE, faults=DOWN, changes=RESTARTS, policies=(NEXUS,),
    ),
    Scenario(
        name="Q4xx", title="half of all requests get a 400, 10 min", shape=ONE,
        faults=_broken(Outcome.CLIENT_ERROR, share=0.5, backends=(0, 1, 2)), bad=(),
    ),
    Scenario(
        name="Q429", title="one backend answers 429 with Retry-After 5, 10 min", shape=ONE,
        faults=_broken(Outcome.THROTTLED, retry_after=5.0), bad=(),
    ),
    Scenario(
        name="Qcut", title="streams of one backend break in the middle, 10 min", shape=ONE,
        faults=_broken(Outcome.CUT, late=True, after=0.0),
    ),
    Scenario(
        name="Qstall", title="streams of one backend stop in the middle, 10 min", shape=ONE,
        faults=_broken(Outcome.TIMEOUT, late=True, after=IDLE_SECONDS),
        note="each fails after idleSeconds, 60",
    ),
    Scenario(
        name="Qbad", title="one backend answers 200 with an error object or a malformed chunk",
        shape=ONE, note="10 min, half of each",
        faults=(*_broken(Outcome.ERROR_BODY, share=0.5), *_broken(Outcome.MALFORMED)),
    ),
    Scenario(
        name="Qgone", title="30 % of the clients leave early, no fault", shape=LEAVING, bad=(),
        note="one proxy, 15 min",
    ),
    Scenario(
        name="S", title="two models, one slow everywhere, one slower on one backend", shape=MIXED,
        faults=(Fault(slow=5.0, models=("short",), end=1200.0),), seconds=1200.0, ends=1200.0,
    ),
    Scenario(
        name="T", title="models load for 60 s after the start", shape=FRESH,
        faults=(Fault(slow=60.0, backends=(0, 1, 2), end=60.0),), seconds=600.0, ends=60.0, bad=(),
    ),
    Scenario(
        name="F3", title="A over 3 proxies of 2 rps", shape=THREE, faults=DOWN,
    ),
    Scenario(
        name="Pskew", title="P without the restart, clocks off by 5 s, every third report twice",
        shape=SKEWED, faults=DOWN, changes=RESTARTS[:2], policies=(NEXUS,), retries=(0,),
        note="clocks run fast or slow by 18 s an hour, a copy comes up to a minute late",
    ),
    Scenario(
        name="Away", title="3 proxies of 2 rps, down for 60 s, the operator dies at 10 s for good",
        shape=THREE, faults=_broken(end=60.0), changes=((10.0, _operator_away),), seconds=600.0,
        ends=60.0, policies=(NEXUS,), retries=(0,),
    ),
    Scenario(
        name="F3C", title="C over 3 proxies of 2 rps", shape=THREE,
        faults=_broken(Outcome.TIMEOUT, after=30.0), policies=(NEXUS,), retries=(0,),
    ),
    Scenario(
        name="F3B", title="B over 3 proxies of 2 rps", shape=THREE, faults=_broken(share=0.6),
        seconds=1200.0,
    ),
    Scenario(
        name="F500", title="A over 500 proxies of 0.1 rps", shape=SIDECARS, faults=DOWN,
        seconds=660.0, policies=(NEXUS, ALONE, "linkerd", "envoy"), retries=(0,), seeds=5,
        note="5 min before, 1 after; 5 seeds",
    ),
    Scenario(
        name="Poison", title="nine honest proxies, one that claims everything fails",
        shape=POISONED, bad=(), changes=((0.0, poison),), policies=(NEXUS,), retries=(0,),
    ),
    Scenario(
        name="Honest", title="A over the nine honest proxies alone", shape=POISONED, faults=DOWN,
        policies=(NEXUS, ALONE), retries=(0,),
    ),
    Scenario(
        name="K9", title="K over these nine proxies", shape=POISONED, faults=_broken(share=0.3),
        policies=(NEXUS,), retries=(0,),
    ),
    Scenario(
        name="Praise", title="A over nine honest proxies, one claims that all is well, a lot of it",
        shape=POISONED, faults=DOWN, changes=((0.0, praise),), policies=(NEXUS,), retries=(0,),
    ),
)  # fmt: skip

CHANCE_SECONDS = {0.2: 3600.0, 0.5: 3600.0, 2.0: 1800.0, 10.0: 600.0}
CHANCES = tuple(
    Scenario(
        name=f"{percent} % at {rps:g} rps",
        title="",
        shape=Shape(traffic=Traffic(rps=rps), slots=round(max(32.0, 16 * rps)), warm=0.0),
        faults=(Fault(outcome=Outcome.SERVER_ERROR, share=percent / 100),),
        seconds=CHANCE_SECONDS[rps],
        ends=3600.0,
        policies=(NEXUS,),
        retries=(0,),
    )
    for percent in (10, 20, 30)
    for rps in CHANCE_SECONDS
)

QUICK = ("A", "B", "E", "L", "Q4xx", "F3")
BY_NAME = {scenario.name: scenario for scenario in (*SCENARIOS, *CHANCES)}
