"""The objects of one kind as the API server has them, by UID, and whether a complete list was ever
seen.

A store takes decoded JSON, keeps typed objects, and tells when something changed. Objects that
cannot be read are left out with one log line. It fetches nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from nexus_api import InvalidObject, LLMBackend, QualityPolicy, RoutingPolicy

T = TypeVar("T", LLMBackend, QualityPolicy, RoutingPolicy)

_log = logging.getLogger("nexus.proxy.kube")


class Store(Generic[T]):
    """Objects of one kind by UID; `synced` from the first complete list on."""

    def __init__(
        self,
        plural: str,
        decode: Callable[[Mapping[str, Any]], T],
        *,
        on_change: Callable[[], None],
    ) -> None:
        self.plural = plural
        self.objects: dict[str, T] = {}
        self.synced = False
        self._decode: Callable[[Mapping[str, Any]], T] = decode
        self._on_change = on_change

    def replace(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Take in a complete list: what is not in it is gone."""
        listed = (self._read(item) for item in items)
        self.objects = {item.metadata.uid: item for item in listed if item is not None}
        self.synced = True
        self._on_change()

    def apply(self, event: str, item: Mapping[str, Any]) -> None:
        """Take in a watch event: ADDED, MODIFIED or DELETED."""
        uid = _uid(item)
        if event == "DELETED":
            if self.objects.pop(uid, None) is not None:
                self._on_change()
            return
        read = self._read(item)
        if read is None:
            return
        known = self.objects.get(uid)
        if known and known.metadata.resource_version == read.metadata.resource_version:
            return
        self.objects[uid] = read
        self._on_change()

    def _read(self, item: Mapping[str, Any]) -> T | None:
        try:
            return self._decode(item)
        except InvalidObject as error:
            _log.warning("ignored: %s", error)
            known: T | None = self.objects.get(_uid(item))
            return known


def _uid(item: Mapping[str, Any]) -> str:
    return str((item.get("metadata") or {}).get("uid", ""))
