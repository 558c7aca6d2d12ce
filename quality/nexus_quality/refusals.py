"""Why a part of a report is refused: every text there is, each the label of a metric.

A reason may go on with details after one of these words; they never contain what a reporter chose.
"""

from __future__ import annotations

from typing import Final

UNKNOWN_BACKEND: Final = "unknown backend"
UNKNOWN_FAMILY: Final = "unknown bucket family"
FUTURE_BUCKET: Final = "a bucket in the future"
IMPOSSIBLE: Final = "numbers that cannot be"
BACKWARDS: Final = "a number that runs backwards"
FUTURE_GENERATION: Final = "a generation that is still to come"
TOO_MANY_GENERATIONS: Final = "too many generations in a bucket"
TOO_MANY_SERIES: Final = "too many series of one reporter"
TOO_MANY_CELLS: Final = "too many buckets of one reporter"
TOO_MANY_INCARNATIONS: Final = "too many incarnations at once"
ENDED_INCARNATION: Final = "an incarnation that has ended"

OTHER: Final = "other"
REASONS: Final = (
    UNKNOWN_BACKEND,
    UNKNOWN_FAMILY,
    FUTURE_BUCKET,
    IMPOSSIBLE,
    BACKWARDS,
    FUTURE_GENERATION,
    TOO_MANY_GENERATIONS,
    TOO_MANY_SERIES,
    TOO_MANY_CELLS,
    TOO_MANY_INCARNATIONS,
    ENDED_INCARNATION,
)
