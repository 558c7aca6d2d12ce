"""How often one may report, and that the table of those who do is bounded."""

from __future__ import annotations

from nexus_operator.pace import BYTES_PER_TOKEN, PER_SECOND, TABLE_SIZE, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_honest_proxy_never_notices() -> None:
    clock = Clock()
    pace = Pace(clock)
    for second in range(3600):
        for _ in range(4):  # workers of one pod
            assert pace.wait("pod") == 0.0
            pace.charge("pod", 20_000)
            if second % 10 == 0:
                assert pace.wait("pod") == 0.0
                pace.charge("pod", 500_000)
        clock.now += 1.0


def test_a_burst_ends_with_the_time_until_the_next_token() -> None:
    clock = Clock()
    pace = Pace(clock, per_second=2.0, burst=3.0)
    assert [pace.wait("pod") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    clock.now += 0.5
    assert pace.wait("pod") == 0.0
    assert pace.wait("other") == 0.0


def test_a_large_body_is_paid_for_afterwards() -> None:
    clock = Clock()
    pace = Pace(clock, per_second=1.0, burst=10.0)
    assert pace.wait("pod") == 0.0
    pace.charge("pod", 29 * BYTES_PER_TOKEN)
    assert pace.wait("pod") == 21.0
    clock.now += 21.0
    assert pace.wait("pod") == 0.0


def test_the_table_is_bounded() -> None:
    pace = Pace(Clock(), size=100)
    for number in range(1000):
        pace.wait(f"pod-{number}")
    assert len(pace) == 100
    assert TABLE_SIZE <= 10_000
    assert PER_SECOND >= 10.0
