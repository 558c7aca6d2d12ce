"""An Event that its process did not live to tell is told by the next one, and none twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from nexus_api import LLMBackend, decode_backend
from nexus_api.meta import BACKEND_PLURAL
from nexus_devtools.desk import BAD, GOOD, UID, Desk
from nexus_operator.events import event
from nexus_operator.notes import Note
from nexus_operator.own_words import RECOVERED
from nexus_operator.plan import Key
from nexus_operator.retold import TOLD_SECONDS, retold
from nexus_quality.report import Pulse

Build = Callable[..., LLMBackend]
Numbers = dict[str, Any]
URL = "http://llm.example:8000"
AUTH = {"secretRef": {"name": "openai", "key": "api-key"}}
NUMBERS: Numbers = {
    "minReporters": 1,
    "recovery": {"baseExclusionSeconds": 30, "slowStartSeconds": 1},
}
FAILING: Numbers = {"requests": 40, "errors": 30}
PROBED: Numbers = {"requests": 2, "probes": 2, "probe_successes": 2}
FAILED_PROBE: Numbers = {"requests": 1, "errors": 1, "probes": 1, "probe_failures": 1}


class Story:
    """A desk whose every write is followed by what another process would tell of its status."""

    def __init__(self, build: Build) -> None:
        self.desk, self.build = Desk(), build
        self.told: set[str] = set()
        self.desk.policy(**NUMBERS)
        self.see()
        self.desk.write()

    def see(self, **spec: object) -> None:
        known = self.desk.registry.backends.get(UID)
        status = msgspec.to_builtins(known.status) if known else {}
        generation = known.metadata.generation + 1 if known else 1
        models = [{"name": "m"}, {"name": "good"}]
        meta = {"generation": generation}
        backend = self.build(**{"models": models} | spec, status=status, meta=meta)
        self.desk.see(backend)

    def found(self) -> LLMBackend:
        """The backend as the API server has it."""
        known = self.desk.registry.backends.get(UID)
        return decode_backend(msgspec.json.decode(msgspec.json.encode(known)))

    def retold(self) -> list[Note]:
        backend = self.found()
        return retold(backend, self.desk.registry.thresholds(backend), self.desk.now)

    def write(self) -> list[Note]:
        """Writes what is due. Nothing that was not told before may be told of the status then."""
        notes = self.desk.write()
        self.told |= {note.mark for note in notes}
        assert {note.mark for note in self.retold()} <= self.told
        return notes

    def expect(self, *reasons: str, message: str | None = None) -> None:
        """The next write tells this, and so would a process that finds its status."""
        notes, again = self.write(), {note.mark: note for note in self.retold()}
        assert [note.reason for note in notes] == list(reasons)
        for note in notes:
            found = again[note.mark]
            assert (found.reason, found.message) == (note.reason, message or note.message)
            assert found.time is not None and 0 <= self.desk.now - found.time <= 1

    def turn(self, seconds: float) -> None:
        self.desk.now += seconds
        assert self.write() == []

    async def probe(self, answer: object, times: int) -> None:
        self.desk.answers[URL] = answer  # type: ignore[assignment]
        for _ in range(times):
            task = asyncio.create_task(self.desk.prober.run())
            self.desk.now += 40
            for _ in range(20):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def story(backend: Build) -> Iterator[Story]:
    story = Story(backend)
    yield story
    # In the end all of it is long ago.
    story.desk.now += TOLD_SECONDS + 1
    assert story.retold() == []


def test_an_exclusion_its_probation_and_its_end_in_their_own_words(story: Story) -> None:
    story.turn(5)
    story.desk.count("one", **FAILING)
    story.expect("Excluded")
    story.turn(25)
    story.desk.now += 10
    story.expect("ProbationStarted")
    story.turn(7)
    story.desk.count("one", generation=2, **FAILED_PROBE)
    story.expect("Excluded")
    story.desk.now += 80
    story.expect("ProbationStarted")
    story.turn(3)
    story.desk.count("two", generation=4, **PROBED)
    story.expect("Recovered", message=RECOVERED)
    story.turn(30)


def test_a_models_exclusion_is_told_as_the_models(story: Story) -> None:
    story.turn(5)
    story.desk.count("one", model="good", requests=40)
    story.desk.count("one", **FAILING)
    story.expect("Excluded")
    assert "Model m: " in story.retold()[0].message
    story.desk.now += 30
    story.expect("ProbationStarted")
    story.turn(3)
    story.desk.count("one", generation=2, **PROBED)
    story.expect("Recovered", message=f"Model m: {RECOVERED[0].lower()}{RECOVERED[1:]}")


def test_a_release_is_told_from_a_recovery(story: Story) -> None:
    story.turn(5)
    story.desk.count("one", **FAILING)
    story.expect("Excluded")
    story.turn(5)
    story.desk.policy(**NUMBERS, errorRateThreshold="95%")
    story.expect("Released")


def test_a_release_by_an_edited_spec_is_told(story: Story) -> None:
    story.turn(5)
    story.desk.count("one", **FAILING)
    story.expect("Excluded")
    story.turn(5)
    story.see(url="http://other.example:8000")
    story.expect("Released")


def test_a_return_without_recovery_is_told(story: Story) -> None:
    story.desk.policy(**NUMBERS | {"recovery": {"enabled": False}})
    story.turn(70)
    story.desk.count("one", **FAILING)
    story.expect("Excluded")
    story.turn(15)
    story.desk.count("one", generation=1, requests=900)
    story.expect("Recovered")


async def test_an_outage_and_its_end_are_told(story: Story) -> None:
    await story.probe(GOOD, 1)
    story.write()
    await story.probe(BAD, 3)
    story.expect("Unhealthy")
    await story.probe(GOOD, 2)
    story.expect("Healthy")


def test_what_a_person_must_mend_is_told_and_that_it_was(story: Story) -> None:
    story.see(auth=AUTH)
    story.turn(5)
    story.desk.hear("one", Pulse(uid=UID, refused=3, key="CredentialsRejected"))
    story.expect("CredentialsRejected")
    story.turn(5)
    story.desk.hear("one", Pulse(uid=UID, key="SecretNotFound"))
    story.write()
    assert [note.reason for note in story.retold()] == ["SecretNotFound"]
    story.desk.now += 5
    story.desk.hear("one", Pulse(uid=UID, key="Untried"))
    story.expect("Released")


def test_a_suspension_is_told_and_its_end_by_no_later_process(story: Story) -> None:
    story.turn(5)
    story.see(suspend=True)
    story.expect("Suspended")
    story.turn(5)
    story.see()
    assert [note.reason for note in story.write()] == ["Resumed"]
    assert story.retold() == []


def test_a_clean_record_has_nothing_to_tell(story: Story) -> None:
    assert story.retold() == []
    story.turn(5)
    story.see(url="http://other.example:8000")
    assert story.write() == []
    assert story.found().status.verdict_generation == 1
    assert story.retold() == []


def test_the_same_change_makes_one_name_and_another_change_another(story: Story) -> None:
    story.turn(5)
    story.desk.count("one", **FAILING)
    (note,) = story.write()
    metadata = story.found().metadata
    (again,) = story.retold()

    def name(of: Note) -> str:
        found: str = event(metadata, of, now=0.0)["metadata"]["name"]
        return found

    assert name(note) == name(again)
    assert name(note) != name(Note(note.reason, note.message, "verdict 2"))
    other = msgspec.structs.replace(metadata, uid="uid-b")
    assert event(other, note, now=0.0)["metadata"]["name"] != name(note)
    unmarked = Note("BudgetSoftLimit", "75 USD")
    assert name(unmarked) != name(unmarked)


def test_a_write_whose_answer_was_lost_is_told_when_it_is_seen(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    story.turn(5)
    story.desk.count("one", **FAILING)
    key, planner = Key(BACKEND_PLURAL, UID), story.desk.planner
    plan = planner.plan(key)
    assert plan is not None
    stored = msgspec.structs.replace(story.found(), status=plan.status)
    document = msgspec.json.decode(msgspec.json.encode(stored))
    story.desk.see(decode_backend(document))
    planner.observed(decode_backend(document), document)
    assert story.desk.late == []
    assert planner.plan(key) is None
    assert [note.reason for note in story.desk.late] == ["Excluded"]
    assert story.desk.late[0].mark == "verdict 1"
    assert len([line for line in caplog.messages if line.startswith("shop/a: Excluded: ")]) == 1
    assert planner.plan(key) is None
    assert len(story.desk.late) == 1


def test_a_write_that_was_refused_is_not_told(story: Story) -> None:
    story.turn(5)
    story.desk.count("one", **FAILING)
    key, planner = Key(BACKEND_PLURAL, UID), story.desk.planner
    assert planner.plan(key) is not None
    assert planner.plan(key) is not None
    assert story.desk.late == []
    assert [note.mark for note in story.write()] == ["verdict 1"]
    assert story.desk.late == []


def test_what_a_status_leaves_open_is_not_guessed(story: Story) -> None:
    story.turn(5)
    story.desk.count("one", model="good", requests=40)
    story.desk.count("one", **FAILING)
    story.expect("Excluded")
    story.turn(2)
    story.desk.count("one", generation=1, model="good", requests=40, errors=40)
    story.expect("Excluded")
    story.desk.now += 40
    story.expect("ProbationStarted")
    story.turn(3)
    story.desk.count("one", generation=3, model="m", eligible=40)
    (note,) = story.write()
    assert (note.reason, note.mark) == ("Released", "verdict 4")
    assert story.retold() == []
