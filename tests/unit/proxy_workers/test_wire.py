"""Messages between a parent and its workers: whole, in order, and what they were."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_api import BudgetState
from nexus_api.backend import SubjectState
from nexus_api.decode import decode_object
from nexus_proxy.counters import Counters
from nexus_proxy.workers.tally import tally_of
from nexus_proxy.workers.wire import (
    Abort,
    Batch,
    Drained,
    Frames,
    Key,
    Load,
    Peers,
    Serving,
    Stop,
    Use,
    World,
    decode_down,
    decode_up,
    frame,
)
from nexus_quality.breaker import Row
from nexus_quality.peers import Saw, Sight
from nexus_quality.report import Cell
from nexus_quality.shared import SharedVerdict
from nexus_quality.spend import Spend
from nexus_quality.words import Words


def document(kind: str, spec: dict[str, Any], **status: Any) -> Any:
    meta = {"name": "a", "namespace": "n", "uid": "u", "labels": {"x": "y"}}
    head = {"apiVersion": "nexus.dev/v1alpha1", "kind": kind, "metadata": meta}
    return decode_object({**head, "spec": spec, "status": status})


BACKEND = document(
    "LLMBackend",
    {
        "url": "http://a:1/v1",
        "type": "openai",
        "auth": {"secretRef": {"name": "s", "key": "k"}},
        "models": [{"name": "m", "capabilities": ["tools"]}],
        "pricing": {"inputUSDPerMillionTokens": "1.5", "outputUSDPerMillionTokens": "2"},
    },
    state="Excluded",
    verdictGeneration=3,
)
VERDICT = SharedVerdict(
    state=SubjectState.PROBATION,
    generation=4,
    until=12.5,
    share_basis_points=100,
    rejected=Words("The key was refused", "Mend it"),
    models={"m": SharedVerdict(state=SubjectState.EXCLUDED, generation=4)},
)
CELL = Cell(
    family=60, bucket=3, uid="u", model="m", generation=2, requests=7, errors=2, ttft_bins={4: 5}
)
UP = [
    Batch(
        tally=tally_of(Counters()),
        cells=[CELL],
        loads=[Load("u", 3, 9, 12.5, 1)],
        uses=[Use("u", "m", 3, float("-inf"), 5.0, {"CHAT": 7.0})],
        keys=[Key("u", 2, False)],
        spend=[Spend(namespace="n", slot=5, nano_usd=9)],
        urgent=0.2,
    ),
    Serving(),
    Drained(True),
    Sight(saw=Saw.OPENED, uid="u", model="m", until=9.5, k=2, row=Row(5, 1.0, 10, 2)),
]
DOWN = [
    World(
        backends=[BACKEND],
        verdicts={"u": VERDICT},
        gone=["v"],
        quality_policies=(document("QualityPolicy", {"minRequests": 3}),),
        routing_policies=(document("RoutingPolicy", {"maxRetries": 1}),),
        secrets={"s": {"k": "v"}},
        budget=BudgetState.SOFT_LIMIT,
    ),
    Peers(loads={"u": 3}, uses=[UP[0].uses[0]], answered=4.5),  # type: ignore[union-attr]
    UP[3],
    Stop(3600.0),
    Abort(),
]


@pytest.mark.parametrize("message", UP, ids=lambda each: type(each).__name__)
def test_what_a_worker_says_is_what_its_parent_hears(message: Any) -> None:
    (body,) = Frames().feed(frame(message))
    assert decode_up(body) == message


@pytest.mark.parametrize("message", DOWN, ids=lambda each: type(each).__name__)
def test_what_a_parent_says_is_what_its_workers_hear(message: Any) -> None:
    (body,) = Frames().feed(frame(message))
    assert decode_down(body) == message


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(0, 3000), max_size=8))
def test_frames_come_out_whole_however_they_were_read(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    frames, found, begin = Frames(), [], 0
    for end in (*sorted(min(cut, len(stream)) for cut in cuts), len(stream)):
        found += frames.feed(stream[begin:end])
        begin = end
    assert found == bodies
