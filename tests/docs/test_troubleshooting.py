"""Whatever the product can say is found on docs/troubleshooting.md."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

from nexus_api import reasons
from nexus_operator.store_trouble import Trouble
from nexus_proxy.routing.refusal import NO_BACKEND
from nexus_quality import words
from nexus_quality.outcome import Outcome

REPOSITORY = Path(__file__).parents[2]
PAGE = " ".join((REPOSITORY / "docs" / "troubleshooting.md").read_text("utf-8").split())
CODE = re.compile(
    r"""(?:\bcode(?:: str)? ?= ?|Rejection\(\s*\d+,\s*|CODE = |INTERNAL = |NO_BACKEND = )"(\w+)\""""
)

# What the sentences of words.py, and of what it is divided into, are found by.
PHRASES = (
    "The backend answers 401 or 403 to the key",
    "which leave it out themselves",
    "not found",
    "has no key",
    "is not a PEM certificate",
    "holds characters that no header can carry",
    "The system's trust store cannot be read",
    "insecureSkipVerify",
    "No proxy reports a refused key or a missing Secret any more",
    "look at the backend's own logs",
    "No rule fires",
    "collects what the proxies know",
    "No request in the last hour",
    "silent for 90 s",
    "it is probed again when the exclusion ends",
    "reaches the threshold",
    "the largest claims cut to the next largest",
    "in a row over the fleet",
    "The proxies that make most of its requests see",
    "On probation",
    "Would be excluded",
    "A probing request failed",
    "their own breakers protect them",
    "left out",
    "look at the backend, or correct",
    "Probes fail",
    "before that counts, the proxies have up to",
    "more than half, began to fail",
    "probes in a row failed",
    "Not probed yet",
    "spec.healthCheck.enabled is false",
    "proxy's breaker is",
    "The policy is valid",
    "is in force in this namespace: it is older",
    "backends and excludes none",
    "spec.targetSelector matches no LLMBackend",
    "is in force for every backend that this policy matches",
    "Its zone is Restricted",
    "Every model has a price",
    "no price",
    "Suspended: spec.suspend is true",
    "Nothing for a person to mend",
    "Requests are routed to it",
    "there was none in the last hour",
    "the proxies that used it have been silent for 90 s",
    "none of its models is known",
)
# These only join, cut or choose among sentences.
NO_SENTENCE = {"split", "listed", "seen_in", "excluded", "NAMED", "SLOW_START", "TURNED"}


def sentences() -> dict[str, str]:
    """Each sentence, or the source of what makes it, by module and name."""
    found: dict[str, str] = {}
    for path in sorted(Path(words.__file__).parent.glob("words*.py")):
        module = importlib.import_module(f"nexus_quality.{path.stem}")
        for name, thing in vars(module).items():
            makes = inspect.isfunction(thing) and thing.__module__ == module.__name__
            if name not in NO_SENTENCE and (makes or (name.isupper() and name[0] != "_")):
                said = inspect.getsource(thing) if makes else str(thing)
                # Sentences are wrapped in the source, and joined from parts.
                found[f"{path.stem}.{name}"] = re.sub(r'"\s*f?"', "", said)
    return found


SENTENCES = sentences()


@pytest.mark.parametrize(
    "name", sorted(name for name, value in vars(reasons).items() if isinstance(value, str))
)
def test_every_reason_is_explained(name: str) -> None:
    if not name.startswith("_"):
        assert (
            f"`{getattr(reasons, name)}`" in PAGE
            or f"### {getattr(reasons, name)}" in PAGE
            or (f"{getattr(reasons, name)} True" in PAGE)
        )


@pytest.mark.parametrize("name", SENTENCES)
def test_every_sentence_has_a_phrase_that_is_on_the_page(name: str) -> None:
    assert any(phrase in SENTENCES[name] for phrase in PHRASES)


@pytest.mark.parametrize("phrase", PHRASES)
def test_every_phrase_is_on_the_page_and_is_still_said(phrase: str) -> None:
    assert phrase in PAGE
    assert any(phrase in said for said in SENTENCES.values())


@pytest.mark.parametrize("text", words.TURNED.values())
def test_every_turn_of_a_verdict_is_found(text: str) -> None:
    assert text in PAGE


@pytest.mark.parametrize("outcome", Outcome)
def test_every_way_an_attempt_can_fail_is_named(outcome: Outcome) -> None:
    assert outcome is Outcome.SUCCESS or f"`{outcome.value}`" in PAGE


@pytest.mark.parametrize("trouble", Trouble)
def test_every_trouble_with_the_store_is_named(trouble: Trouble) -> None:
    first_words = " ".join(trouble.value.split()[:4])
    assert first_words in PAGE


def test_every_code_of_an_error_is_explained() -> None:
    sources = (REPOSITORY / "proxy" / "nexus_proxy").rglob("*.py")
    codes = {code for path in sources for code in CODE.findall(path.read_text("utf-8"))}
    assert {NO_BACKEND, "bad_request", "missing_capability", "stream_interrupted"} <= codes
    assert [code for code in sorted(codes) if f"`{code}`" not in PAGE] == []
