"""What a probe of the operator saw, in one line, with what to do where that helps.

Promises sentences that fit after one another, and into those of `nexus_quality.words_of_health`.
`unread`: the Secret whose key could not be shown, "" if none.
"""

from __future__ import annotations

UNAUTHENTICATED = (401, 403)


def answers(path: str, status: int) -> str:
    """It did answer."""
    return f"GET {path} answers {status}"


def silent(path: str, seconds: int) -> str:
    """It did not answer in time."""
    return f"GET {path}: no answer within {seconds} s"


def too_long(path: str, most: int) -> str:
    """It said more than is read."""
    return f"GET {path}: the answer is longer than {most} bytes"


def unreachable(path: str, error: Exception) -> str:
    """It could not be asked."""
    return f"GET {path}: {' '.join(str(error).split()) or type(error).__name__}"


def alive(shown: tuple[str, str] | None) -> str:
    """It refuses, so it is there; `shown`: Secret and key of what was shown to it."""
    to = f"to the key in Secret {shown[0]}, key {shown[1]}" if shown else "without a key"
    return f"{to}: alive"


def alive_without_models(shown: tuple[str, str] | None, *, unread: str) -> str:
    """The same, and it has not said which models it has."""
    return f"{alive(shown)}; its models are unknown: write spec.models{_readable(unread)}"


def no_models(error: Exception, *, unread: str) -> str:
    """It is well, but has not said which models it has."""
    return f"; its models are unknown ({error}): write spec.models{_readable(unread)}"


def _readable(unread: str) -> str:
    """What else there is to do where no key could be shown."""
    return f", or let nexus-operator read Secret {unread}" if unread else ""


def hint(status: int) -> str:
    """What to do about an answer that counts as a failure."""
    if status in UNAUTHENTICATED:
        return ": it wants credentials, give it spec.auth"
    if 300 <= status < 400:
        return ": redirects are not followed, write the final address in spec.url"
    if status == 404:
        return ": set spec.healthCheck.path to an address it serves"
    return ""
