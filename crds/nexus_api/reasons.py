"""Every condition type, condition reason, event reason and reconciler name that users can see.

Promises: a name shown in a status, an Event, a log line or a rejection is spelled here, once.
Not here: when each of them applies.
"""

from __future__ import annotations

from typing import Final

# Condition types of LLMBackend.
READY: Final = "Ready"  # requests are routed to the backend
HEALTHY: Final = "Healthy"  # the operator's probe reaches it
WITHIN_POLICY: Final = "WithinPolicy"  # its quality is within the policy in force
STALLED: Final = "Stalled"  # a person must mend something
PRICED: Final = "Priced"  # an Open backend has a price

# Condition types of QualityPolicy and RoutingPolicy.
ACCEPTED: Final = "Accepted"  # the policy is valid and takes part
EFFECTIVE: Final = "Effective"  # the policy is in force for at least one backend

# Reasons of Ready=True.
ACTIVE: Final = "Active"  # takes its full share of requests
NO_TRAFFIC: Final = "NoTraffic"  # no attempts in the last hour, reporters alive
REPORTS_STALE: Final = "ReportsStale"  # reporters fell silent without a final report
PROBATION: Final = "Probation"  # takes a few probing requests (also the state)

# Reasons of Ready=False: the state.
SUSPENDED: Final = "Suspended"  # taken out of routing by spec.suspend
UNHEALTHY: Final = "Unhealthy"  # probes fail and no proxy succeeds
EXCLUDED: Final = "Excluded"  # taken out by the verdict

# Reasons of Healthy.
PROBE_SUCCEEDED: Final = "ProbeSucceeded"  # True: the probe answers as expected
ALIVE_UNAUTHENTICATED: Final = "AliveUnauthenticated"  # True: 401 or 403 to a probe without key
PROBE_FAILED: Final = "ProbeFailed"  # False: failureThreshold probes failed (Unknown: just now)
AWAITING_FIRST_PROBE: Final = "AwaitingFirstProbe"  # Unknown: not probed yet
PROBING_DISABLED: Final = "ProbingDisabled"  # Unknown: healthCheck.enabled is false
PROBE_DISAGREES: Final = "ProbeDisagrees"  # Unknown: probes fail, but proxies succeed
PROBER_SUSPECT: Final = "ProberSuspect"  # Unknown: most backends turned at once

# Reasons of WithinPolicy.
WITHIN_THRESHOLDS: Final = "WithinThresholds"  # True: no rule fires
FAILING_FOR_SOME: Final = "FailingForSome"  # True: a rule fires, but without its quorum
WOULD_BE_EXCLUDED: Final = "WouldBeExcluded"  # False: a rule fires under an Audit policy
AWAITING_PROBE: Final = "AwaitingProbe"  # False: on probation, no probe has been answered
ERROR_RATE: Final = "ErrorRate"  # False: the error rate of the hour
SHORT_WINDOW: Final = "ShortWindow"  # False: the error rate of the short window
CONSECUTIVE_FAILURES: Final = "ConsecutiveFailures"  # False: failures in a row at one proxy
FLEET_ROW: Final = "FleetRow"  # False: failures in a row, summed over the fleet
OPEN_BREAKERS: Final = "OpenBreakers"  # False: proxies with most of the traffic cut it off
FAILED_PROBATION: Final = "FailedProbation"  # False: a probing request failed
NO_DATA: Final = "NoData"  # Unknown: no outcome has been reported yet

# Reasons of Stalled.
NOTHING_TO_MEND: Final = "NothingToMend"  # False
SECRET_NOT_FOUND: Final = "SecretNotFound"  # True: the Secret of auth or tls does not exist
SECRET_KEY_NOT_FOUND: Final = "SecretKeyNotFound"  # True: the Secret lacks the key
CREDENTIALS_REJECTED: Final = "CredentialsRejected"  # True: 401 or 403 to the key, three times
INVALID_SPEC: Final = "InvalidSpec"  # True: the object cannot be read as its kind

# Reasons of Priced.
PRICE_KNOWN: Final = "PriceKnown"  # True: a price is configured
NO_PRICE: Final = "NoPrice"  # False: an Open backend costs money, but no price is configured
NOT_CHARGED: Final = "NotCharged"  # True: a Restricted backend needs no price

# Reasons of Accepted and Effective.
VALID: Final = "Valid"  # Accepted=True
SUPERSEDED: Final = "Superseded"  # Accepted=False: another RoutingPolicy of the namespace is older
IN_FORCE: Final = "InForce"  # Effective=True
OVERRIDDEN: Final = "Overridden"  # Effective=False: another policy wins, named in the message
NO_MATCH: Final = "NoMatch"  # Effective=False: the selector selects no backend
AUDIT_ONLY: Final = "AuditOnly"  # Effective=False: the policy only watches

# Event reasons on LLMBackend, one for each change of state.
EVENT_EXCLUDED: Final = "Excluded"  # the verdict took the backend or a model out
EVENT_PROBATION: Final = "ProbationStarted"  # the exclusion ended, probing begins
EVENT_RECOVERED: Final = "Recovered"  # back in routing with slow start
EVENT_RELEASED: Final = "Released"  # a change of policy, spec or Secret ended the exclusion
EVENT_UNHEALTHY: Final = "Unhealthy"  # probes fail
EVENT_HEALTHY: Final = "Healthy"  # probes succeed again
EVENT_SUSPENDED: Final = "Suspended"  # spec.suspend was set
EVENT_RESUMED: Final = "Resumed"  # spec.suspend was unset
EVENT_CREDENTIALS_REJECTED: Final = "CredentialsRejected"  # the backend refuses the key
EVENT_SECRET_NOT_FOUND: Final = "SecretNotFound"  # the proxies do not find a Secret
EVENT_SECRET_KEY_NOT_FOUND: Final = "SecretKeyNotFound"  # the proxies do not find a key in it

# Event reasons on RoutingPolicy, one for each change of the budget's state.
EVENT_BUDGET_NORMAL: Final = "BudgetNormal"  # below the soft limit again: new month, new limit
EVENT_BUDGET_SOFT_LIMIT: Final = "BudgetSoftLimit"  # softLimit is reached
EVENT_BUDGET_HARD_LIMIT: Final = "BudgetHardLimit"  # monthlyLimitUSD is reached

# Reconcilers of the routing pipeline, in order; they name themselves in rejection_reasons.
REQUEST_ANALYZER: Final = "RequestAnalyzer"  # unknown models, missing capabilities
PRIVACY_RECONCILER: Final = "PrivacyReconciler"  # Open backends for restricted traffic
BUDGET_RECONCILER: Final = "BudgetReconciler"  # backends the spent budget forbids
TIER_RECONCILER: Final = "TierReconciler"  # backends below the asked tier
QUALITY_RECONCILER: Final = "QualityReconciler"  # backends the verdict or the breaker took out
SCHEDULER_RECONCILER: Final = "SchedulerReconciler"  # suspended, unhealthy, full or resting ones

RECONCILERS: Final = (
    REQUEST_ANALYZER,
    PRIVACY_RECONCILER,
    BUDGET_RECONCILER,
    TIER_RECONCILER,
    QUALITY_RECONCILER,
    SCHEDULER_RECONCILER,
)
