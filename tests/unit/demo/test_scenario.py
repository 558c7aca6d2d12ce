"""The timeline as data: it ends, and says what it needs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml

from nexus_api import LLMBackend, QualityPolicy
from nexus_devtools.demo import scenario
from nexus_devtools.demo.cluster import with_urls

SAMPLES = Path(__file__).resolve().parents[3] / "manifests" / "samples" / "demo"


def test_the_timeline_ends_in_under_two_minutes_even_if_nothing_ever_happens() -> None:
    assert scenario.longest_seconds() < 120


def test_every_wait_has_an_end_and_every_step_takes_time() -> None:
    for step in scenario.STEPS:
        assert (step.at_most_seconds > 0) == bool(step.awaited), step.name
        assert step.at_most_seconds + step.hold_seconds > 0, step.name


def test_the_share_after_slowing_is_measured_within_its_step() -> None:
    slows = scenario.STEPS[-1]
    assert slows.name == scenario.SLOWS
    assert slows.hold_seconds > scenario.SETTLE_SECONDS


def test_the_share_before_slowing_is_measured_after_slow_start_has_ended() -> None:
    policy = yaml.safe_load((SAMPLES / "qualitypolicy.yaml").read_text())
    repaired = next(step for step in scenario.STEPS if step.name == scenario.REPAIRED)
    slow_start = policy["spec"]["recovery"]["slowStartSeconds"]
    assert repaired.hold_seconds - scenario.SHARE_WINDOW_SECONDS >= slow_start - 1


def test_the_breaking_backend_is_repaired_before_its_exclusion_ends() -> None:
    policy = yaml.safe_load((SAMPLES / "qualitypolicy.yaml").read_text())
    breaks = next(step for step in scenario.STEPS if step.name == scenario.BREAKS)
    # The exclusion is shortened by chance by up to a tenth.
    assert breaks.hold_seconds < 0.9 * policy["spec"]["recovery"]["baseExclusionSeconds"]


def test_the_sample_backends_are_those_of_the_scenario_and_get_this_runs_addresses() -> None:
    urls = {name: f"http://127.0.0.1:{port}" for port, name in enumerate(names(), start=1)}
    documents = list(yaml.safe_load_all(with_urls(backends(), urls)))
    assert {d["metadata"]["name"]: d["spec"]["url"] for d in documents} == urls


@pytest.mark.parametrize("file", ["llmbackends.yaml", "qualitypolicy.yaml"])
def test_the_samples_are_what_the_types_say(file: str) -> None:
    kinds = {"LLMBackend": LLMBackend, "QualityPolicy": QualityPolicy}
    for document in yaml.safe_load_all((SAMPLES / file).read_text()):
        msgspec.convert(document, type=kinds[document["kind"]])


def names() -> tuple[str, ...]:
    return (scenario.REAL, scenario.BREAKING, scenario.SLOWING)


def backends() -> str:
    return (SAMPLES / "llmbackends.yaml").read_text()
