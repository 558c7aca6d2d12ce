"""kopf's handlers: each translates one call and delegates.

Only low-level handlers, for they alone leave no annotation and no finalizer on anybody's object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import kopf

from nexus_api.meta import (
    BACKEND_PLURAL,
    GROUP,
    QUALITY_POLICY_PLURAL,
    ROUTING_POLICY_PLURAL,
    VERSION,
)
from nexus_operator.context import Context
from nexus_operator.login import connection
from nexus_operator.problems import Fatal


def operator_registry() -> kopf.OperatorRegistry:
    """A registry of one's own: kopf's default one is shared by the whole process."""
    registry = kopf.OperatorRegistry()
    kopf.on.startup(registry=registry, id="start")(start)
    kopf.on.cleanup(registry=registry, id="stop")(stop)
    kopf.on.login(registry=registry, id="login")(login)
    kopf.on.event(GROUP, VERSION, BACKEND_PLURAL, registry=registry, id="backend")(backend)
    kopf.on.event(GROUP, VERSION, QUALITY_POLICY_PLURAL, registry=registry, id="quality")(quality)
    kopf.on.event(GROUP, VERSION, ROUTING_POLICY_PLURAL, registry=registry, id="routing")(routing)
    return registry


async def start(memo: Context, **_: Any) -> None:
    """Everything of ours starts before kopf watches anything."""
    try:
        await memo.start()
    except Fatal as problem:
        memo.fail(problem)
        raise kopf.PermanentError(str(problem)) from None


async def stop(memo: Context, **_: Any) -> None:
    """Everything of ours stops after kopf watches nothing any more."""
    await memo.stop()


async def login(memo: Context, **_: Any) -> kopf.ConnectionInfo:
    """The credentials that our own client uses, once they are accepted."""
    return connection(await memo.accepted_credentials())


async def backend(event: Mapping[str, Any], memo: Context, **_: Any) -> None:
    """An LLMBackend was listed, added, changed or deleted."""
    memo.take(BACKEND_PLURAL, event)


async def quality(event: Mapping[str, Any], memo: Context, **_: Any) -> None:
    """A QualityPolicy was listed, added, changed or deleted."""
    memo.take(QUALITY_POLICY_PLURAL, event)


async def routing(event: Mapping[str, Any], memo: Context, **_: Any) -> None:
    """A RoutingPolicy was listed, added, changed or deleted."""
    memo.take(ROUTING_POLICY_PLURAL, event)
