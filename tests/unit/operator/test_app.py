"""The settings of kopf that keep it off people's objects, and this process alive."""

from __future__ import annotations

import itertools

from nexus_operator.app import kopf_settings
from nexus_operator.handlers import operator_registry


def test_kopf_is_told_to_leave_objects_alone() -> None:
    settings = kopf_settings()
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert not settings.posting.loggers
    assert settings.persistence.finalizer.startswith("nexus.dev/")


def test_no_handler_needs_a_finalizer_or_an_annotation() -> None:
    registry = operator_registry()
    assert len(registry._watching.get_all_handlers()) == 3
    assert not registry._spawning.get_all_handlers()
    assert not registry._changing.get_all_handlers()


def test_kopf_does_not_kill_the_process_after_a_failed_watch() -> None:
    assert kopf_settings().process.ultimate_exiting_timeout is None


def test_a_request_is_retried_as_long_as_it_takes_each_time_anew() -> None:
    pauses = kopf_settings().networking.error_backoffs
    for _ in range(2):
        first = list(itertools.islice(iter(pauses), 1000))
        assert first[0] < 1 and first[-1] == 3.0
