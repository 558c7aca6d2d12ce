"""From a director's records to the figures, and the commands a person can try afterwards.

Promises: windows and margins are chosen here, in one place. It is NOT arithmetic: see ``measure``.
"""

from __future__ import annotations

import sys
import time

from nexus_devtools.demo import measure, scenario
from nexus_devtools.demo.director import Director
from nexus_devtools.demo.measure import Figures
from nexus_devtools.demo.stage import Stage


def figures(director: Director) -> Figures:
    """The figures of a run that has ended."""
    outcomes, chat, chronicle = director.outcomes, director.chat.outcomes, director.chronicle
    slow = chronicle.began[scenario.SLOWS]
    scores = director.scores
    until = time.monotonic()
    return Figures(
        answer=director.answer,
        requests=len(outcomes),
        requests_by_app=measure.by_app(outcomes),
        streamed=sum(outcome.streamed for outcome in outcomes),
        client_failures=measure.failures(outcomes),
        retried=sum(outcome.retries > 0 for outcome in outcomes),
        seconds_to_exclude=chronicle.seconds_to(
            scenario.BREAKING, "Excluded", since=scenario.BREAKS
        ),
        attempts_failed=(
            None if director.at_exclusion is None else director.at_exclusion.since_script.faulted
        ),
        served_while_excluded=measure.served_within(
            outcomes,
            scenario.BREAKING,
            chronicle.spans(scenario.BREAKING, "Excluded", until=until),
        ),
        seconds_to_probation=chronicle.seconds_to(
            scenario.BREAKING, "Probation", since=scenario.REPAIRED
        ),
        seconds_to_return=chronicle.seconds_to(
            scenario.BREAKING, "Active", since=scenario.REPAIRED
        ),
        share_before=measure.share(
            chat,
            scenario.SLOWING,
            start=slow - scenario.SHARE_WINDOW_SECONDS,
            end=slow,
        ),
        share_after=measure.share(
            chat, scenario.SLOWING, start=slow + scenario.SETTLE_SECONDS, end=until
        ),
        score_before=scores.get(scenario.REPAIRED, {}).get(scenario.SLOWING),
        score_after=scores.get(scenario.SLOWS, {}).get(scenario.SLOWING),
        seconds=until - director.began,
    )


def commands(stage: Stage) -> list[str]:
    """What to type into another terminal while the demo is kept running."""
    one = stage.proxies[scenario.APPS[0]]
    failing = '{"faults":[{"kind":"status","status":500}]}'
    chat = f'{{"model":"{scenario.CHAT_MODEL}","messages":[{{"role":"user","content":"Hello"}}]}}'
    control = stage.simulated[scenario.BREAKING].control_url
    return [
        "It goes on under the same traffic until Ctrl-C. In another terminal:",
        "",
        f"  export KUBECONFIG={stage.plane.kubeconfig}",
        f"  alias kubectl={stage.plane.kubectl}",
        f"  kubectl -n {scenario.NAMESPACE} get llmbackends -w",
        f"  kubectl -n {scenario.NAMESPACE} get llmbackend {scenario.BREAKING} -o yaml",
        f"  kubectl -n {scenario.NAMESPACE} edit qualitypolicy demo",
        "",
        "Break sim-a, and repair it:",
        f"  curl {control}/_script -d '{failing}'",
        f"  curl {control}/_script -d '{{}}'",
        "",
        "Ask, and see why it was routed there:",
        f"  curl -i {one.url}/v1/chat/completions -d '{chat}'",
        f"  curl {one.admin_url}/v1/explain -d '{chat}'",
        f"  curl {stage.operator_url}/v1/stats",
        f"  OPENAI_BASE_URL={one.url}/v1 OPENAI_API_KEY=unused {sys.executable} -c 'import openai;"
        ' print(openai.OpenAI().chat.completions.create(model="gemma3-270m", messages=[{"role":'
        f' "user", "content": "{scenario.QUESTION}"}}]).choices[0].message.content)\'',
    ]
