"""The words around the tables of docs/state-machines.md, and what each guard and action means.

Promises no rule: what is not in the code is not claimed here, and a test refuses an explanation
that no row uses.
"""

from __future__ import annotations

from typing import Final

INTRODUCTION: Final = """\
# State machines

`make docs` writes this page from `quality/nexus_quality/verdict_table.py` and
`quality/nexus_quality/breaker_table.py`, where each table is a tuple of rows; a test fails when the
page is old. Both are tried from the top, the first row of the current state whose guard holds is
taken. Row names are those of logs, metrics (`nexus_operator_transitions_total{row}`) and tests.
"""

VERDICT: Final = """\
## The shared verdict

One per backend and one per model of it, kept by the operator, published in `LLMBackend.status`. A
row that changes a state raises the backend's `verdictGeneration`, is one status write and one
Event, and happens when that write is accepted. While the backend is not Active its models' verdicts
stand still (S17). `Suspended` and `Unhealthy` are overlays: they cover what is shown, not what is
counted.
"""

ROWS_ELSEWHERE: Final = """\
Rows that change no state are not in the table. S2 (a rule fires for too few: `FailingForSome`), S3
(it fires under `Audit`: `WouldBeExcluded`), S5 (nothing to judge: `NoTraffic`, `ReportsStale`), S6
and S13 (outcomes that only count in figures) are what `assessment.py` says of a state; S18 (a
write was refused) is the writer's, which tries the latest wanted state again.
"""

BREAKER: Final = """\
## The local breaker

One per backend and one per (backend, model) in each proxy. Ordinary requests flow in `Closed`
alone. The `Follow…` states do as the shared verdict says; the others are the proxy's own. L3, L14:
an outcome for which no row is written only counts. L22: a process that starts takes the state that
the shared verdict has at first sight. With `--workers` each worker has its own, and hears of the
failures that the others saw; `peer opened` and `peer closed` are what one of them did.
"""

EXPLAINED: Final = {
    "_always": "",
    "_nothing": "only counted",
    # The shared verdict: guards.
    "_respecified": "the spec changed what makes a backend a new one",
    "_thawed": "a model whose backend came back, or is on probation with no other requests",
    "_released": "`Audit`, or the policy was edited and the recorded evidence would not fire now",
    "_over_long": "the policy was edited and allows no `until` this late",
    "_calm": "`maxExclusionSeconds` without a transition, count above 0",
    "_fires": "a rule fires with its quorum, `Enforce`, the operator has heard enough to judge",
    "_served_meanwhile": "`until` passed unseen, a quorum was heard, enough successes since (not of"
    " one reporter alone where there are others), no rule fires",
    "_due_and_heard": "`until` passed; after an absence, the fleet was heard first",
    "_seed_recovers": "`recovery.enabled` false, no rule fires on the windows any more",
    "_probe_failed": "a probe failed, and not only at the reporter that ended the last probation,"
    " unless it alone has eligible requests or five probes of others decided nothing",
    "_proven": "`probationSuccesses` probes succeeded",
    "_progressed": "another probe succeeded",
    "_share_is_off": "five probes unanswered, or eligible requests doubled or halved",
    # The shared verdict: actions.
    "_renew": "count 0",
    "_release": "slow start; count kept",
    "_cap": "`until` is now plus the maximum, at most",
    "_fade": "count less 1 for each `maxExclusionSeconds`",
    "_exclude_by_rule": "count + 1, new `until`; rule, errors and requests are recorded",
    "_begin_probation": "share from the eligible requests, successes 0",
    "_return_at_once": "no slow start; count kept",
    "_exclude_again": "count + 1, `until` twice as far; who reported it is remembered",
    "_progress": "successes counted",
    "_adjust_share": "new share, same generation; 0 while five are unanswered",
    # The local breaker: guards.
    "_stale": "the attempt began before the breaker last turned",
    "_timely": "the attempt began since the breaker last turned",
    "_together_opens": "the rows of its models, the worst left out, are long enough together",
    "_row_opens": "the row is long enough, no more attempts open than it is long, `Enforce`",
    "_enforced": "`Enforce`",
    "_ends_row": "the attempt began after the row's first failure",
    "_probes_suffice": "timely, and `probationSuccesses` reached",
    "_orphan": "half open because the operator was away",
    # The local breaker: actions.
    "_open": "k + 1, own `until`; pushed at once",
    "_open_together": "k + 1, own `until`; pushed at once",
    "_open_as_told": "k, row and `until` of the process that saw it, the later `until` of two",
    "_lengthen": "row + 1",
    "_end_row": "row 0",
    "_half_open": "probes are sent, successes 0",
    "_mark_probe": "a probe is under way",
    "_free_probe": "room for the next probe",
    "_probe_succeeded": "successes + 1, row 0",
    "_spend": "no more probes under this generation; pushed at once",
    "_close": "row 0, slow start; k kept",
    "_close_as_shared": "row 0, slow start as the shared verdict says; k kept",
    "_follow": "own `until` and row dropped; k kept",
    "_reset": "row 0, no slow start; k kept",
}
