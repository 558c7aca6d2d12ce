"""One attempt to make: which candidate, as what, and what the client is told about it."""

from __future__ import annotations

from nexus_proxy.routing.candidate import Candidate

CAPABILITY_MATCH = "capability-match"
FAILOVER = "failover"
PRIVACY_REQUIREMENT = "privacy-requirement"
CAPACITY_OVERFLOW = "capacity-overflow"
RECOVERY_PROBE = "recovery-probe"
LAST_RESORT = "last-resort"


class Choice:
    """One attempt to make; shared between requests and never changed.

    `probe` and `last_resort` are for `candidate.subject.begin`; `reason` is the value of
    X-Nexus-Route-Reason; `fallback_model` that of X-Nexus-Fallback-Model (None: no fallback);
    `rewrite` the value to put in place of the request's `model` (None: send the body as it came).
    Use `rewrite`, not `candidate.upstream_model`: it also covers aliases and fallbacks.
    """

    __slots__ = ("candidate", "fallback_model", "last_resort", "probe", "reason", "rewrite")

    def __init__(
        self,
        candidate: Candidate,
        *,
        probe: bool = False,
        last_resort: bool = False,
        reason: str = CAPABILITY_MATCH,
        fallback_model: str | None = None,
        rewrite: str | None = None,
    ) -> None:
        self.candidate = candidate
        self.probe = probe
        self.last_resort = last_resort
        self.reason = reason
        self.fallback_model = fallback_model
        self.rewrite = rewrite

    def marked(self, reason: str, *, probe: bool = False, last_resort: bool = False) -> Choice:
        """The same attempt made for another reason."""
        return Choice(
            self.candidate,
            probe=probe,
            last_resort=last_resort,
            reason=reason,
            fallback_model=self.fallback_model,
            rewrite=self.rewrite,
        )
