"""When a report holds everything, and when it may leave out what this operator was told."""

from __future__ import annotations

import pytest

from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.report import Answer, Refusal, Report, decode_report, encode, taken_by
from nexus_quality.telling import WHOLE_SECONDS

START = 1_000.0
OPERATOR = Answer(epoch="one")
ANOTHER = Answer(epoch="two")


class Desk:
    """A monitor that counts on two backends, and an operator that answers as it is told."""

    def __init__(self) -> None:
        self.now = START
        self.monitor = Monitor(
            incarnation="ab" * 16,
            started=START,
            random=lambda: 0.5,
            on_change=lambda: None,
            on_urgent=lambda _: None,
        )
        for uid in ("uid-a", "uid-b"):
            self.count(uid)

    def count(self, uid: str = "uid-a") -> None:
        self.monitor.subject(uid, "tiny").begin(self.now).end(Outcome.SUCCESS, self.now)

    def report(
        self, answer: Answer | None = OPERATOR, *, full: bool = True, final: bool = False
    ) -> Report:
        made = self.monitor.report(self.now, full=full, final=final)
        assert made is not None
        arrived = decode_report(encode(made))
        if answer is None:
            self.monitor.unanswered(self.now)
        else:
            self.monitor.acknowledged(made, answer, self.now)
        self.now += 0.01
        return arrived


@pytest.fixture
def desk() -> Desk:
    return Desk()


def uids(report: Report) -> set[str]:
    return {cell.uid for cell in report.cells}


def test_the_first_report_holds_everything_and_the_next_what_is_new(desk: Desk) -> None:
    first = desk.report()
    assert (first.full, first.told, uids(first)) == (True, "", {"uid-a", "uid-b"})
    desk.count("uid-b")
    second = desk.report()
    assert (second.full, second.told, uids(second)) == (False, "one", {"uid-b"})
    third = desk.report()
    assert (third.full, third.told, third.cells) == (False, "one", [])


def test_until_one_was_answered_every_report_holds_everything(desk: Desk) -> None:
    for _ in range(3):
        assert desk.report(None).full
    assert desk.report().full
    assert not desk.report().full


def test_what_was_not_answered_is_in_the_next_report_that_completes(desk: Desk) -> None:
    desk.report()
    desk.count("uid-b")
    desk.report(None, full=False)
    desk.count("uid-a")
    assert uids(desk.report()) == {"uid-a", "uid-b"}


def test_a_push_completes_nothing(desk: Desk) -> None:
    desk.report()
    desk.count()
    pushed = desk.report(full=False)
    assert (pushed.full, pushed.told) == (False, "")


def test_after_a_refusal_everything_is_told_again(desk: Desk) -> None:
    desk.report()
    desk.count("uid-b")
    desk.report(Answer(epoch="one", refused=(Refusal(reason="unknown backend"),)), full=False)
    again = desk.report()
    assert (again.full, again.told, uids(again)) == (True, "", {"uid-a", "uid-b"})
    assert not desk.report().full


def test_another_operator_is_told_everything_as_a_replay(desk: Desk) -> None:
    desk.report()
    assert not desk.report(ANOTHER).full
    replay = desk.report(ANOTHER)
    assert (replay.full, replay.replay, uids(replay)) == (True, True, {"uid-a", "uid-b"})
    assert desk.report(ANOTHER).told == "two"


def test_a_replay_that_yet_another_operator_answers_is_enough(desk: Desk) -> None:
    desk.report()
    desk.report(ANOTHER)
    assert desk.report(Answer(epoch="three")).replay
    assert desk.report(Answer(epoch="three")).told == "three"


def test_between_two_operators_that_take_turns_nothing_is_claimed(desk: Desk) -> None:
    desk.report()
    for answer in (ANOTHER, OPERATOR) * 3:
        made = desk.report(answer, full=False, final=True)
        assert made.full or made.told not in ("", answer.epoch)


def test_everything_is_told_again_every_few_minutes(desk: Desk) -> None:
    desk.report()
    desk.now += WHOLE_SECONDS * 0.99
    assert not desk.report().full
    desk.now += WHOLE_SECONDS * 0.26
    again = desk.report()
    assert (again.full, again.replay, uids(again)) == (True, False, {"uid-a", "uid-b"})
    assert not desk.report().full


def test_a_goodbye_holds_everything_unless_this_operator_was_told(desk: Desk) -> None:
    first = desk.report(None, full=False, final=True)
    assert (first.full, first.final, uids(first)) == (True, True, {"uid-a", "uid-b"})
    desk.report()
    desk.count("uid-b")
    last = desk.report(ANOTHER, full=False, final=True)
    assert (last.full, last.told, uids(last)) == (False, "one", {"uid-b"})
    again = desk.report(ANOTHER, full=False, final=True)
    assert (again.full, again.final, uids(again)) == (True, True, {"uid-a", "uid-b"})


def test_what_a_forgotten_backend_had_to_say_is_in_a_report_with_everything(desk: Desk) -> None:
    desk.monitor.forget("uid-b")
    assert uids(desk.report()) == {"uid-a", "uid-b"}
    desk.report(ANOTHER)
    assert uids(desk.report(ANOTHER)) == {"uid-a"}


@pytest.mark.parametrize(("told", "full"), [("one", True), ("two", False), ("", False)])
def test_a_claim_counts_with_the_operator_it_names(told: str, full: bool) -> None:
    report = Report(incarnation="a" * 32, now_ms=5, told=told)
    assert taken_by(report, "one").full is full
