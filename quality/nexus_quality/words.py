"""The sentences about a backend that a person reads, each spelled once.

Promises that a condition, its Event, the log line and the proxy's 503 say the same: what was seen,
in numbers, and what to do. `Words` is such a pair, `message` the one line of both. It decides
nothing: which sentence applies is for those that know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

NAMED = 5  # how many names a sentence lists
_JOINT = "; "


class Words(NamedTuple):
    """A reason, and what to do about it."""

    reason: str
    action: str

    @property
    def message(self) -> str:
        """Both in one line, as a condition has it."""
        return f"{self.reason}{_JOINT}{self.action}"


def split(message: str) -> Words:
    """The pair that `message` was made of; a line of another origin is all reason."""
    reason, joint, action = message.rpartition(_JOINT)
    return Words(reason, action) if joint else Words(message, "")


def listed(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


# Credentials


def key_rejected(*, secret: str, key: str, refusals: int, threshold: int) -> Words:
    """The backend answers 401 or 403 to the key of its `auth`."""
    return Words(
        f"The backend answers 401 or 403 to the key in Secret {secret}, key {key}: "
        f"{refusals} refusals in a row, {threshold} suffice",
        f"put a valid key into Secret {secret}, or change spec.auth",
    )


def key_rejected_for_some(words: Words, reporters: Sequence[str]) -> str:
    """The same as only a part of the fleet sees it, which concludes nothing for the rest."""
    return f"{words.reason}, but only as seen by {listed(reporters)}, which leave it out themselves"


def secret_missing(*, secret: str, key: str) -> Words:
    """The Secret of `auth` or `tls` is not there."""
    return Words(f"Secret {secret} not found", f"create Secret {secret} with key {key}")


def secret_key_missing(*, secret: str, key: str) -> Words:
    """The Secret is there, the key in it is not."""
    return Words(f"Secret {secret} has no key {key}", f"add key {key} to Secret {secret}")


def ca_unusable(*, secret: str, key: str) -> Words:
    """What `tls.caSecretRef` names is there, and no certificate."""
    return Words(
        f"Secret {secret} key {key} is not a PEM certificate", "put the CA certificate there as PEM"
    )


def key_unusable(*, secret: str, key: str) -> Words:
    """What `auth.secretRef` names is there, and can be in no header."""
    return Words(
        f"Secret {secret} key {key} holds characters that no header can carry",
        "put the bare API key there",
    )


NO_TRUST = Words(
    "The system's trust store cannot be read",
    "mend it, or name the backend's own CA in tls.caSecretRef",
)
UNVERIFIED = Words(
    "insecureSkipVerify: its certificate is not verified, so whoever is on the way can read its key"
    " and answer in its place",
    "put its CA certificate into a Secret and name that in tls.caSecretRef",
)

MENDED = "No proxy reports a refused key or a missing Secret any more"


# The verdict

LOOK = "look at the backend's own logs"
LOOK_AT_MODEL = f"{LOOK} for this model"
NO_RULE = "No rule fires"
COLLECTING = (
    "The operator has just started or come back and collects what the proxies know; "
    "no rule fires so far"
)
NO_REQUEST = "No request in the last hour"
SILENT = "The proxies that used it have been silent for 90 s"


def wait_or(look: str) -> str:
    """What to do about an exclusion, in a rejection."""
    return f"{look[:1].upper()}{look[1:]}; it is probed again when the exclusion ends"


def rate_reached(
    *, what: str, window: str, errors: int, requests: int, rate: str, threshold: str
) -> str:
    """A rate of `what` over a window is at the policy's threshold or above it."""
    counts = f"({errors} of {requests})"
    return f"{what} rate {rate} of the {window} {counts} reaches the threshold {threshold}"


def levelled(reason: str) -> str:
    """The counts of `reason` are not what was claimed: those that claim most were cut."""
    return f"{reason}, the largest claims cut to the next largest"


def row_reached(*, failures: int, what: str, needed: int) -> str:
    """Failures in a row, summed over the fleet."""
    return f"{failures} {what} in a row over the fleet, {needed} suffice"


def breakers_open(*, what: str, errors: int, requests: int, failed: str) -> str:
    """Proxies that make at least half of the usual attempts keep them away."""
    counts = f"({errors} of {requests} {failed})"
    return f"The proxies that make most of its requests see {what} in a row {counts}"


def excluded(*, reason: str, until: str, look: str = LOOK) -> str:
    """Out by the verdict; `until` "" where no end is set."""
    end = f"; probed again from {until}" if until else ""
    return f"{reason or 'Excluded'}{end}; {look}"


def on_probation(*, successes: int, needed: int) -> str:
    """The exclusion has ended, probing requests decide."""
    return f"On probation: {successes} of {needed} probing requests succeeded"


def would_be_excluded(reason: str) -> str:
    """A rule fires, and the policy only watches."""
    return f"Would be excluded: {reason}"


def probe_failed(*, failures: int, probes: int) -> str:
    """Probing requests failed, of those that were answered."""
    return f"A probing request failed ({failures} of {probes})"


def failing_for_some(reason: str, reporters: Sequence[str], *, protected: bool) -> str:
    """A rule fires, but only by the word of some; under an audit they have no breakers either."""
    protection = "; their own breakers protect them" if protected else ""
    return f"{reason}, but only as seen by {listed(reporters)}{protection}"


def models_out(names: Sequence[str]) -> str:
    """The backend is within its policy, some of its models are not."""
    noun = "model" if len(names) == 1 else "models"
    return f"No rule fires for the backend; left out: {noun} {listed(names)}"


# Verdicts


def own_breaker(*, model: str, state: str, failures: int) -> Words:
    """A proxy's own breaker keeps a model, or with `model` "" the backend, away."""
    subject = f"Model {model}: this" if model else "This"
    after = f"{failures} failures in a row" if failures else "failures in a row"
    return Words(
        f"{subject} proxy's breaker is {state} after {after}",
        "Wait for a probing request to succeed, or look at the backend",
    )


SLOW_START = "Wait for the end of slow start"

# Changes of state, by the row of the verdict's table

TURNED = {
    "S7": "The exclusion ended; probing requests decide",
    "S8": "It served well while the operator was away",
    "S9": "No rule fires any more",
    "S11": "The probing requests succeeded; traffic comes back by slow start",
    "S15": "The spec changed: judged as a new backend",
    "S16": "The policy was edited: its evidence no longer excludes",
    "S17": "Only its requests are there to probe the backend",
}

# Policies

VALID = "The policy is valid"


def superseded(winner: str) -> str:
    """Another RoutingPolicy of the namespace is in force."""
    return f"{winner} is in force in this namespace: it is older"


def only_watches(*, matched: int) -> str:
    """An audit is in force for nothing."""
    return f"Watches {matched} backends and excludes none"


NO_MATCH = "spec.targetSelector matches no LLMBackend of this namespace"


def in_force(*, mine: int, matched: int, others: Sequence[str]) -> str:
    """For how many of its backends a policy is in force, and which policies are for the rest."""
    names = ", ".join(others[:NAMED])
    if not mine:
        return f"{names} is in force for every backend that this policy matches"
    rest = f"; {names} for the rest" if names else ""
    return f"In force for {mine} of {matched} backends it matches{rest}"


# Prices

NOT_CHARGED = "Its zone is Restricted"
PRICED = "Every model has a price"


def no_price(models: Sequence[str]) -> str:
    """Models of an Open backend have no price, or with none named, it has none itself."""
    what = f"no price for {', '.join(models[:NAMED])}" if models else "no price"
    return f"{what}: set spec.pricing"


# Routing

SUSPENDED = Words("Suspended: spec.suspend is true", "set spec.suspend to false to route to it")
NOTHING_TO_MEND = "Nothing for a person to mend"
ROUTED = "Requests are routed to it"
NO_TRAFFIC = f"{ROUTED}; there was none in the last hour"
REPORTS_STALE = f"{ROUTED}; the proxies that used it have been silent for 90 s"
NO_MODELS = (
    "No request can be routed to it yet: none of its models is known; write spec.models, or see "
    "condition Healthy for why the probe found none"
)
