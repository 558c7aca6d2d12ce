"""One bad model leaves the backend's others alone: every S-row with a model as its subject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from nexus_api.backend import (
    BackendState,
    ExclusionRule,
    LLMBackendStatus,
    ModelQuality,
    Quality,
    SubjectState,
)
from nexus_quality.engine import BackendFacts, Engine, Transition
from nexus_quality.policy import DEFAULT_POLICY, Policy
from nexus_quality.published import exclusion_of, with_verdicts
from nexus_quality.report import OTHER_MODEL, Cell, CellKey, Pulse, Report
from nexus_quality.verdicts import Verdicts

NOW = 1_700_000_000.0
LONG_AGO = NOW - 3_600.0
FACTS = BackendFacts(
    uid="uid-a", namespace="shop", name="a", fingerprint="spec", models=("good", "bad", "third")
)
S = SubjectState
AUDIT = replace(DEFAULT_POLICY, enforce=False)
SHORT = replace(DEFAULT_POLICY, base_exclusion_seconds=10, max_exclusion_seconds=60)
FAILING = {"requests": 20, "errors": 20}
SERVING = {"requests": 20}


class Bench:
    """An engine and what the pods of its fleet have counted, per (model, generation)."""

    def __init__(
        self,
        *,
        started: float = LONG_AGO,
        policy: Policy = DEFAULT_POLICY,
        models: tuple[str, ...] | None = FACTS.models,
    ) -> None:
        self.now = NOW
        self.facts = replace(FACTS, models=models)
        self.engine = Engine(epoch="one", started=started, random=lambda: 0.0)
        self.engine.upsert(self.facts, policy, self.now)
        self.counted: dict[tuple[int, CellKey], Mapping[str, int]] = {}

    def hear(
        self,
        models: Mapping[str, Mapping[str, int]],
        *,
        pods: int = 2,
        first: int = 0,
        generation: int | None = None,
        pulses: Mapping[str, Mapping[str, Any]] | None = None,
        adding: bool = False,
    ) -> bool:
        """Each of some pods reports the same of the current bucket, tagged with what is known, with
        `adding` on top of what it has reported; True if the answer to the last of them names the
        backend as a suspect.
        """
        suspect = False
        tag = self.engine.verdicts("uid-a").generation if generation is None else generation
        elapsed = self.now - NOW + 36_005.0
        for number in range(first, first + pods):
            cells = [
                self.cell(number, family, int(elapsed // family), model, tag, adding, counts)
                for family in (10, 60, 3600)
                for model, counts in models.items()
            ]
            report = Report(
                incarnation=f"{number:032x}",
                now_ms=int(elapsed * 1000),
                full=True,
                cells=cells,
                pulses=[
                    Pulse(uid="uid-a", model=model, generation=tag, **pulse)
                    for model, pulse in (pulses or {}).items()
                ],
            )
            merged = self.engine.merge(f"pod-{number}", report, self.now)
            assert merged.answer.refused == ()
            suspect = bool(merged.answer.suspects)
        return suspect

    def cell(
        self,
        pod: int,
        family: int,
        bucket: int,
        model: str,
        generation: int,
        adding: bool,
        counts: Mapping[str, int],
    ) -> Cell:
        key = (pod, CellKey(family, bucket, "uid-a", model, generation))
        total = Counter(self.counted.get(key, {})) if adding else Counter[str]()
        total.update(counts)
        self.counted[key] = total
        return Cell(**key[1]._asdict(), **total)

    def wanted(self) -> Transition | None:
        return self.engine.wanted("uid-a", self.now)

    def accept(self) -> tuple[str, str]:
        """Accept what is wanted; its row and model."""
        transition = self.wanted()
        assert transition is not None
        self.engine.accept(transition, self.now)
        return transition.row, transition.model

    def states(self) -> dict[str, str]:
        """The states, "" is the backend."""
        verdicts = self.engine.verdicts("uid-a")
        found = {"": str(verdicts.backend.state)}
        return found | {m: str(v.state) for m, v in verdicts.models.items()}

    def condition(self) -> tuple[str, str, str]:
        within = self.engine.assess("uid-a", self.now).within_policy
        return str(within.status), within.reason, within.message

    def edit(self, policy: Policy) -> None:
        self.engine.upsert(self.facts, policy, self.now)

    def one_bad(self) -> Bench:
        """The model `bad` is out, `good` serves."""
        self.hear({"good": SERVING, "bad": FAILING})
        assert self.accept() == ("S1", "bad")
        return self

    def on_probation(self) -> Bench:
        """The model `bad` is on probation."""
        self.one_bad()
        self.now += 31.0
        self.hear({"good": SERVING}, generation=1)
        assert self.accept() == ("S7", "bad")
        return self


class TestWhoIsOut:
    def test_a_failing_model_is_excluded_and_its_backend_is_not(self) -> None:
        bench = Bench()
        bench.hear({"good": SERVING, "bad": FAILING})
        transition = bench.wanted()
        assert transition is not None
        assert (transition.row, transition.model) == ("S1", "bad")
        assert transition.message == (
            "Model bad: error rate 100% of the last 60 s (40 of 40) reaches the threshold 50%"
        )
        bench.engine.accept(transition, bench.now)
        assert bench.states() == {"": "Active", "bad": "Excluded"}
        assert bench.wanted() is None

    def test_its_transition_takes_the_backends_next_generation_and_no_window_from_it(self) -> None:
        bench = Bench().one_bad()
        verdicts = bench.engine.verdicts("uid-a")
        assert (verdicts.generation, verdicts.backend.generation) == (1, 0)
        assert verdicts.of("bad").generation == 1
        assert verdicts.of("good").generation == 0
        # What `good` did under generation 0 still counts, beside what it does under 1.
        bench.hear({"good": {"requests": 60, "errors": 60}}, generation=1)
        transition = bench.wanted()
        assert transition is not None and (transition.row, transition.model) == ("S1", "")
        assert transition.after.firing is not None
        assert (transition.after.firing.errors, transition.after.firing.requests) == (120, 160)
        assert transition.after.generation == 2

    def test_what_models_did_before_their_return_is_not_held_against_the_backend(self) -> None:
        bench = Bench()
        bench.hear({"good": SERVING, "bad": FAILING, "third": FAILING})
        assert [bench.accept(), bench.accept()] == [("S1", "bad"), ("S1", "third")]
        bench.now += 31.0
        bench.hear({"good": SERVING})
        assert [bench.accept(), bench.accept()] == [("S7", "bad"), ("S7", "third")]
        served = {"requests": 2, "probe_successes": 2, "probes": 2}
        bench.hear({"bad": served, "third": served}, pods=1)
        assert [bench.accept(), bench.accept()] == [("S11", "bad"), ("S11", "third")]
        assert bench.wanted() is None
        assert bench.engine.assess("uid-a", bench.now).within_policy.message == "No rule fires"

    def test_connect_errors_are_the_backends_whoever_asked(self) -> None:
        bench = Bench()
        unreached = {"requests": 20, "errors": 20, "connect_errors": 20}
        bench.hear({"good": {"requests": 2}, "bad": unreached})
        transition = bench.wanted()
        assert transition is not None and (transition.row, transition.model) == ("S1", "")
        assert transition.message == (
            "Connection error rate 90.91% of the last 60 s (40 of 44) reaches the threshold 50%"
        )

    def test_several_models_failing_are_the_backend_failing(self) -> None:
        bench = Bench()
        some = {"requests": 4, "errors": 4}
        bench.hear({"good": some, "bad": some, "third": some})
        assert bench.accept() == ("S1", "")
        assert bench.states() == {"": "Excluded"}

    def test_a_rule_that_does_not_hold_without_the_worst_model_excludes_no_backend(self) -> None:
        bench = Bench(models=None)
        bench.hear({"good": {"requests": 7}, OTHER_MODEL: {"requests": 20, "errors": 20}})
        assert bench.wanted() is None

    def test_with_one_model_in_use_only_the_backend_is_judged(self) -> None:
        bench = Bench()
        bench.hear({"bad": FAILING})
        assert bench.accept() == ("S1", "")

    @pytest.mark.parametrize("name", [OTHER_MODEL, "unheard-of"])
    def test_a_name_that_no_candidate_has_is_never_judged_by_itself(self, name: str) -> None:
        bench = Bench()
        bench.hear({"good": SERVING, name: FAILING})
        assert bench.wanted() is None

    def test_where_the_models_are_not_known_any_name_is_judged_but_other(self) -> None:
        bench = Bench(models=None)
        bench.hear({"good": SERVING, "whatever": FAILING, OTHER_MODEL: {"requests": 1}})
        assert bench.accept() == ("S1", "whatever")

    def test_a_model_that_fails_for_some_alone_stays(self) -> None:
        bench = Bench()
        bench.hear({"good": SERVING, "bad": SERVING}, pods=3)
        bench.hear({"bad": {"requests": 200, "errors": 200}}, pods=1, first=9)
        assert bench.wanted() is None
        status, reason, message = bench.condition()
        assert (status, reason) == ("True", "FailingForSome")
        assert message.startswith("Model bad: error rate") and "only as seen by pod-9" in message

    @pytest.mark.parametrize(
        ("pulses", "rule"),
        [
            ({"bad": {"open": True}}, ExclusionRule.OPEN_BREAKERS),
            ({"bad": {"row": 3, "row_began_ms": 36_004_000}}, ExclusionRule.FLEET_ROW),
        ],
    )
    def test_pulses_of_a_model_speak_for_it_alone(
        self, pulses: dict[str, Any], rule: ExclusionRule
    ) -> None:
        bench = Bench()
        few = {"requests": 3, "errors": 3}
        bench.hear({"good": {"requests": 40}, "bad": few}, pods=3, pulses=pulses)
        transition = bench.wanted()
        assert transition is not None and (transition.row, transition.model) == ("S1", "bad")
        assert transition.after.firing is not None and transition.after.firing.rule is rule

    def test_open_breakers_of_the_backend_exclude_it_when_nothing_reaches_it(self) -> None:
        bench = Bench()
        few = {"requests": 2, "errors": 2, "connect_errors": 2}
        bench.hear({"good": few, "bad": few}, pulses={"": {"open": True}})
        transition = bench.wanted()
        assert transition is not None and (transition.row, transition.model) == ("S1", "")
        assert transition.message == (
            "The proxies that make most of its requests see connection failures in a row "
            "(8 of 8 did not reach it)"
        )

    def test_no_more_models_are_excluded_than_a_status_can_tell_of(self) -> None:
        names = tuple(f"m{number:02}" for number in range(40))
        bench = Bench(models=names)
        bench.hear(dict.fromkeys(names, SERVING) | dict.fromkeys(names[:35], FAILING))
        rows = []
        while (transition := bench.wanted()) is not None and transition.model:
            bench.engine.accept(transition, bench.now)
            rows.append(transition.model)
        assert rows == list(names[:32])

    def test_a_model_that_is_gone_gives_its_place_to_one_in_use(self) -> None:
        names = tuple(f"m{number:02}" for number in range(40))
        bench = Bench(models=None)
        bench.hear(dict.fromkeys(names, SERVING) | dict.fromkeys(names[:35], FAILING))
        for _ in range(32):
            bench.accept()
        bench.now += 3_700.0
        bench.engine.expire(bench.now)
        bench.hear(dict.fromkeys(names[1:35], FAILING) | {"good": SERVING, "late": FAILING})
        taken = []
        while (transition := bench.wanted()) is not None:
            bench.engine.accept(transition, bench.now)
            taken.append((transition.row, transition.model))
        assert ("S1", "late") in taken
        out = bench.engine.verdicts("uid-a").out
        assert (len(out), names[0] in out) == (32, False)

    def test_it_is_no_longer_what_makes_the_backend_a_suspect(self) -> None:
        bench = Bench()
        assert bench.hear({"good": {"requests": 90}, "bad": {"requests": 4, "errors": 4}})
        bench.hear({"good": {"requests": 90}, "bad": FAILING})
        assert bench.accept() == ("S1", "bad")
        tried = {"requests": 9, "errors": 9}  # as the last resort
        assert not bench.hear({"good": {"requests": 90}, "bad": tried})


class TestTheWayBack:
    def test_probation_is_that_of_the_model_with_a_share_of_its_own(self) -> None:
        bench = Bench().one_bad()
        bench.now += 31.0
        bench.hear({"good": SERVING, "bad": {"eligible": 40}, "third": {"eligible": 900}})
        transition = bench.wanted()
        assert transition is not None
        assert (transition.row, transition.model) == ("S7", "bad")
        assert transition.message == "Model bad: the exclusion ended; probing requests decide"
        assert transition.after.share_basis_points == 2_500  # one a second of four
        assert transition.verdicts.backend.state is S.ACTIVE

    def test_probes_of_the_model_bring_it_back_and_no_others(self) -> None:
        bench = Bench().on_probation()
        bench.hear({"good": {"requests": 20, "probe_successes": 2, "probes": 2}})
        assert bench.wanted() is None and bench.states()["bad"] == "Probation"
        bench.hear({"bad": {"requests": 1, "probe_successes": 1, "probes": 1}}, pods=1)
        assert bench.wanted() is None
        assert bench.engine.verdicts("uid-a").of("bad").successes == 1  # S10
        bench.hear({"bad": {"requests": 1, "probe_successes": 1, "probes": 1}}, pods=1, first=1)
        assert bench.accept() == ("S11", "bad")
        verdict = bench.engine.verdicts("uid-a").of("bad")
        assert (verdict.count, verdict.recovered, verdict.generation) == (1, bench.now, 3)

    def test_judging_it_again_and_again_takes_no_more_memory(self) -> None:
        bench = Bench().on_probation()
        bench.wanted()
        kept = [len(r.derived["uid-a"]) for r in bench.engine.ledger.reporters.values()]
        for _ in range(50):
            bench.now += 0.01
            bench.wanted()
        after = [len(r.derived["uid-a"]) for r in bench.engine.ledger.reporters.values()]
        assert after == kept

    def test_a_failed_probe_excludes_the_model_twice_as_long(self) -> None:
        bench = Bench().on_probation()
        failed = {"requests": 1, "errors": 1, "probes": 1, "probe_failures": 1}
        bench.hear({"bad": failed}, pods=1)
        transition = bench.wanted()
        assert transition is not None and (transition.row, transition.model) == ("S12", "bad")
        assert transition.message == "Model bad: a probing request failed (1 of 1)"
        assert transition.after.until == bench.now + 60.0

    def test_five_unanswered_probes_set_the_models_share_to_nothing(self) -> None:
        bench = Bench().on_probation()
        bench.hear(
            {"good": SERVING, "bad": {"eligible": 1}}, pods=5, pulses={"bad": {"probing": True}}
        )
        assert bench.wanted() is None
        assert bench.engine.verdicts("uid-a").of("bad").share_basis_points == 0

    def test_the_deadline_is_the_models(self) -> None:
        bench = Bench().one_bad()
        assert bench.engine.deadline() == NOW + 30.0

    def test_its_count_fades(self) -> None:
        bench = Bench().on_probation()
        bench.hear({"bad": {"requests": 2, "probe_successes": 2, "probes": 2}}, pods=1)
        assert bench.accept() == ("S11", "bad")
        bench.now += 301.0
        bench.hear({"good": SERVING})
        assert bench.wanted() is None
        assert bench.engine.verdicts("uid-a").of("bad").count == 0

    def test_without_recovery_it_returns_when_its_own_windows_are_clean(self) -> None:
        bench = Bench(policy=replace(DEFAULT_POLICY, recovery_enabled=False)).one_bad()
        assert bench.engine.verdicts("uid-a").of("bad").until is None
        bench.now += 3_500.0
        bench.hear({"good": FAILING | {"errors": 1}})
        assert bench.wanted() is None
        bench.now += 200.0
        bench.engine.expire(bench.now)
        assert bench.accept() == ("S9", "bad")


class TestTheBackendGoes:
    def backend_out(self) -> Bench:
        bench = Bench().one_bad()
        bench.now += 5.0
        bench.hear({"good": {"requests": 60, "errors": 60}})
        assert bench.accept() == ("S1", "")
        return bench

    def test_its_models_stand_still(self) -> None:
        bench = self.backend_out()
        bench.now = NOW + 36.0
        bench.hear({"good": {"eligible": 5}, "bad": {"eligible": 5}}, pods=1)
        assert bench.accept() == ("S7", "")
        bench.now += 30.0  # long after the model's own `until`
        bench.hear({"good": {"eligible": 5}, "bad": {"eligible": 5}}, pods=1)
        assert bench.wanted() is None
        assert bench.states() == {"": "Probation", "bad": "Excluded"}

    def test_they_return_with_it_and_keep_their_counts(self) -> None:
        bench = self.backend_out()
        bench.now = NOW + 36.0
        bench.hear({"good": {"eligible": 5}})
        assert bench.accept() == ("S7", "")
        bench.hear({"good": {"requests": 2, "probes": 2, "probe_successes": 2, "eligible": 5}})
        transition = bench.wanted()
        assert transition is not None and transition.row == "S11"
        told = transition.verdicts.of("bad")
        assert (told.state, told.count, told.generation) == (S.ACTIVE, 1, 4)
        bench.engine.accept(transition, bench.now)
        assert bench.states() == {"": "Active", "bad": "Active"}
        assert bench.wanted() is None  # what it did before is not looked at again

    def test_probes_of_a_model_that_is_out_do_not_count_for_it(self) -> None:
        bench = self.backend_out()
        bench.now = NOW + 36.0
        bench.hear({"good": {"eligible": 5}})
        assert bench.accept() == ("S7", "")
        failed = {"requests": 1, "errors": 1, "probes": 1, "probe_failures": 1}
        bench.hear({"bad": failed, "good": {"eligible": 5}})
        assert bench.wanted() is None

    def test_where_only_requests_for_a_model_that_is_out_could_probe_it_is_let_in(self) -> None:
        bench = self.backend_out()
        bench.now = NOW + 70.0
        bench.hear({"bad": {"eligible": 5}})
        assert bench.accept() == ("S7", "")
        transition = bench.wanted()
        assert transition is not None and (transition.row, transition.model) == ("S17", "bad")
        bench.engine.accept(transition, bench.now)
        assert bench.states() == {"": "Probation", "bad": "Active"}
        bench.hear({"bad": {"requests": 2, "probes": 2, "probe_successes": 2}})
        assert bench.accept() == ("S11", "")


class TestChanges:
    def test_a_policy_under_which_its_evidence_would_not_fire_releases_it(self) -> None:
        bench = Bench().one_bad()
        bench.edit(replace(DEFAULT_POLICY, threshold_basis_points=10_000))
        assert bench.accept() == ("S16", "bad")
        verdict = bench.engine.verdicts("uid-a").of("bad")
        assert (verdict.state, verdict.recovered, verdict.count) == (S.ACTIVE, bench.now, 1)

    def test_a_policy_under_which_it_would_shortens_it_at_most(self) -> None:
        bench = Bench().one_bad()
        bench.edit(replace(DEFAULT_POLICY, base_exclusion_seconds=5, max_exclusion_seconds=10))
        assert bench.wanted() is None
        assert bench.engine.verdicts("uid-a").of("bad").until == NOW + 10.0

    def test_an_audit_releases_it_and_says_what_it_would_do(self) -> None:
        bench = Bench().one_bad()
        bench.edit(AUDIT)
        assert bench.accept() == ("S16", "bad")
        bench.hear({"good": {"requests": 80}, "bad": FAILING})
        assert bench.wanted() is None
        status, reason, message = bench.condition()
        assert (status, reason) == ("False", "WouldBeExcluded")
        assert message.startswith("Would be excluded: Model bad: error rate 100%")

    def test_a_new_spec_is_a_clean_record_for_all_models(self) -> None:
        bench = Bench().one_bad()
        bench.engine.upsert(replace(bench.facts, fingerprint="other"), DEFAULT_POLICY, bench.now)
        assert bench.accept() == ("S15", "")
        assert bench.states() == {"": "Active"}
        assert bench.wanted() is None
        assert bench.engine.verdicts("uid-a").generation == 2

    def test_a_model_that_the_backend_no_longer_has_is_forgotten(self) -> None:
        bench = Bench().one_bad()
        bench.engine.upsert(replace(bench.facts, models=("good",)), DEFAULT_POLICY, bench.now)
        assert bench.states() == {"": "Active"}

    @pytest.mark.parametrize("subject", ["bad", ""])
    def test_and_stays_so_though_a_write_about_it_was_under_way(self, subject: str) -> None:
        bench = Bench()
        if subject:
            bench.hear({"good": SERVING, "bad": FAILING})
        else:
            bench.one_bad()
            bench.hear({"good": {"requests": 60, "errors": 60}})
        transition = bench.wanted()
        assert transition is not None and transition.model == subject
        bench.engine.upsert(replace(bench.facts, models=("good",)), DEFAULT_POLICY, bench.now)
        bench.engine.accept(transition, bench.now)
        assert set(bench.states()) == {""}
        assert bench.engine.verdicts("uid-a").generation == transition.after.generation

    def test_a_transition_of_a_model_holds_only_once_its_write_was_accepted(self) -> None:
        bench = Bench()
        bench.hear({"good": SERVING, "bad": FAILING})
        first, again = bench.wanted(), bench.wanted()
        assert first == again and bench.states() == {"": "Active"}

    def test_what_became_of_other_models_while_a_write_was_under_way_stays(self) -> None:
        bench = Bench().on_probation()
        bench.hear({"third": FAILING, "good": {"requests": 200}})
        transition = bench.wanted()
        assert transition is not None and transition.model == "third"
        bench.hear({"bad": {"requests": 1, "probes": 1, "probe_successes": 1}}, pods=1)
        bench.wanted()  # S10 needs no write
        bench.engine.accept(transition, bench.now)
        assert bench.states() == {"": "Active", "bad": "Probation", "third": "Excluded"}
        assert bench.engine.verdicts("uid-a").of("bad").successes == 1

    def test_the_condition_names_the_models_that_are_left_out(self) -> None:
        status, reason, message = Bench().one_bad().condition()
        assert (status, reason) == ("True", "WithinThresholds")
        assert message == "No rule fires for the backend; left out: model bad"


class TestStarting:
    def status(self, bench: Bench) -> LLMBackendStatus:
        verdicts = bench.engine.verdicts("uid-a")
        return LLMBackendStatus(
            state=BackendState(str(verdicts.backend.state)),
            verdict_generation=verdicts.generation,
            exclusion=exclusion_of(verdicts.backend),
            quality=Quality(reporters=2),
            model_quality=with_verdicts((), verdicts.models),
        )

    def restarted(self, status: LLMBackendStatus, now: float, **given: Any) -> Bench:
        bench = Bench(started=now, **given)
        bench.now = now
        bench.engine.restore("uid-a", status, now)
        return bench

    @pytest.mark.parametrize("make", [Bench.one_bad, Bench.on_probation])
    def test_what_was_published_is_taken_over(self, make: Any) -> None:
        before = make(Bench())
        told = before.engine.verdicts("uid-a").of("bad")
        after = self.restarted(self.status(before), before.now + 1.0)
        verdicts = after.engine.verdicts("uid-a")
        kept = verdicts.of("bad")
        assert (kept.state, kept.count, kept.until, kept.started) == (
            told.state,
            told.count,
            told.until,
            told.started,
        )
        assert kept.firing == replace(told.firing, blamed=())
        assert verdicts.generation == before.engine.verdicts("uid-a").generation
        assert verdicts.backend.state is S.ACTIVE
        assert after.wanted() is None

    def test_a_model_that_was_served_well_meanwhile_returns_at_once(self) -> None:
        status = self.status(Bench().one_bad())
        bench = self.restarted(status, NOW + 120.0)
        assert bench.wanted() is None  # nobody was heard yet
        bench.hear({"good": SERVING, "bad": {"requests": 1}}, generation=1)
        assert bench.accept() == ("S8", "bad")

    def test_or_goes_on_probation_if_it_was_not(self) -> None:
        bench = self.restarted(self.status(Bench().one_bad()), NOW + 120.0)
        bench.hear({"good": SERVING, "bad": {"requests": 1, "errors": 1}}, generation=1)
        assert bench.accept() == ("S7", "bad")

    def test_a_starting_operator_excludes_no_model_by_the_word_of_one(self) -> None:
        bench = self.restarted(self.status(Bench()), NOW)
        bench.hear({"good": SERVING, "bad": FAILING}, pods=1)
        assert bench.wanted() is None
        bench.hear({"good": SERVING, "bad": FAILING}, pods=2)
        assert bench.accept() == ("S1", "bad")


class TestPublishing:
    def test_those_not_active_come_first_and_at_most_32_of_all(self) -> None:
        names = tuple(f"m{number:02}" for number in range(40))
        bench = Bench(models=names)
        counts: dict[str, dict[str, int]] = {
            name: {"requests": 100 + number} for number, name in enumerate(names)
        }
        counts["m00"] = {"requests": 20, "errors": 20}
        bench.hear(counts)
        assert bench.accept() == ("S1", "m00")
        verdicts = bench.engine.verdicts("uid-a")
        figures = bench.engine.figures("uid-a", bench.now)
        told = with_verdicts(figures.model_quality(verdicts.models), verdicts.models)
        assert [m.name for m in told][:3] == ["m00", "m39", "m38"]
        assert (len(told), figures.models_omitted) == (32, 8)
        assert told[0].state is S.EXCLUDED and told[0].exclusion is not None
        assert told[0].exclusion.reason == (
            "Model m00: error rate 100% of the last 60 s (40 of 40) reaches the threshold 50%"
        )
        assert (told[0].requests_1h, told[0].errors_1h) == (40, 40)
        assert {m.state for m in told[1:]} == {S.ACTIVE}

    def test_a_model_without_figures_is_told_of_while_it_has_a_record(self) -> None:
        verdicts = Bench().one_bad().engine.verdicts("uid-a")
        known = (ModelQuality(name="good", state=S.EXCLUDED, requests_1h=3),)
        told = with_verdicts(known, verdicts.models)
        assert [(m.name, str(m.state)) for m in told] == [("bad", "Excluded"), ("good", "Active")]
        assert with_verdicts(known, {}) == (
            ModelQuality(name="good", state=S.ACTIVE, requests_1h=3),
        )


counts = st.fixed_dictionaries({"requests": st.integers(1, 60), "errors": st.integers(0, 60)}).map(
    lambda c: {"requests": max(c.values()), "errors": c["errors"]}
)


@settings(max_examples=40, deadline=None)
@given(good=counts, noise=counts)
def test_whatever_becomes_of_a_model_that_is_out_says_nothing_of_its_backend(
    good: dict[str, int], noise: dict[str, int]
) -> None:
    quiet, loud = Bench().one_bad(), Bench().one_bad()
    quiet.hear({"good": good})
    loud.hear({"good": good, "bad": noise})
    assert quiet.wanted() == loud.wanted()
    assert quiet.condition() == loud.condition()


class Life(RuleBasedStateMachine):
    """Reports, edits and time in any order, for a backend of three models."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(policy=SHORT)

    def settle(self) -> None:
        """Let the engine go as far as it wants to, and look at every step."""
        bench = self.bench
        for _ in range(12):
            before = bench.engine.verdicts("uid-a")
            transition = bench.wanted()
            if transition is None:
                return
            held = bench.engine.verdicts("uid-a")
            bench.engine.accept(transition, bench.now)
            self.check(held, transition)
            assert bench.engine.verdicts("uid-a").generation == before.generation + 1
        raise AssertionError("it never comes to rest")

    def check(self, before: Verdicts, transition: Transition) -> None:
        after, row = self.bench.engine.verdicts("uid-a"), transition.row
        assert transition.verdicts == after
        assert transition.after.generation == after.generation
        if transition.model:
            assert after.backend == before.backend, "a model's flip is its own"
            assert not before.frozen or row == "S17"
            assert {m: v for m, v in after.models.items() if m != transition.model} == {
                m: v for m, v in before.models.items() if m != transition.model
            }
        elif after.backend.state is S.ACTIVE:
            assert not after.out, "its models come back with it"
            kept = {m: v.count for m, v in before.models.items() if v.count}
            assert {m: v.count for m, v in after.models.items()} == ({} if row == "S15" else kept)
        else:
            assert after.models == before.models, "they stand still"

    @rule(
        model=st.sampled_from(["good", "bad", "third"]),
        good=st.booleans(),
        connect=st.booleans(),
        number=st.sampled_from([1, 5, 25]),
    )
    def outcomes(self, model: str, good: bool, connect: bool, number: int) -> None:
        """Each of two pods sees the same, as a probe where it is one."""
        verdicts = self.bench.engine.verdicts("uid-a")
        subject = verdicts.backend if verdicts.frozen else verdicts.of(model)
        made = {"requests": number, "errors": number * (not good)}
        made["connect_errors"] = made["errors"] * connect
        if subject.state is not S.ACTIVE:
            made["eligible"] = number
        if subject.state is S.PROBATION and model not in (verdicts.out if verdicts.frozen else ()):
            made |= {"probes": number, ("probe_successes" if good else "probe_failures"): number}
        self.report({model: made})

    def report(self, made: dict[str, dict[str, int]]) -> None:
        self.bench.hear(made, adding=True)
        self.settle()

    @rule(seconds=st.sampled_from([10.0, 30.0, 70.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.now += seconds
        self.bench.engine.expire(self.bench.now)
        self.settle()

    @rule(policy=st.sampled_from([SHORT, AUDIT, replace(SHORT, threshold_basis_points=10_000)]))
    def the_policy_is_edited(self, policy: Policy) -> None:
        self.bench.edit(policy)
        self.settle()

    @rule(fingerprint=st.sampled_from(["spec", "other"]))
    def the_spec_changes(self, fingerprint: str) -> None:
        self.bench.facts = replace(self.bench.facts, fingerprint=fingerprint)
        self.bench.edit(SHORT)
        self.settle()

    @rule()
    def the_operator_restarts(self) -> None:
        status = TestStarting().status(self.bench)
        before = self.bench.engine.verdicts("uid-a")
        fresh = Bench(started=self.bench.now, policy=SHORT)
        fresh.now, fresh.facts = self.bench.now, self.bench.facts
        fresh.edit(SHORT)
        fresh.engine.upsert(fresh.facts, SHORT, fresh.now)
        fresh.engine.restore("uid-a", status, fresh.now)
        after = fresh.engine.verdicts("uid-a")
        assert (after.generation, after.out) == (before.generation, before.out)
        fresh.counted = self.bench.counted
        self.bench = fresh

    def teardown(self) -> None:
        """Once all is well and asked for, all of it is Active."""
        self.bench.edit(SHORT)
        for _ in range(12):
            self.bench.now += 61.0
            for model in ("good", "bad", "third"):
                self.outcomes(model, good=True, connect=False, number=5)
        assert set(self.bench.states().values()) == {"Active"}


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
