"""Packed sketches in one piece are the list that they stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nexus_quality.sketches import MANY, Sketches

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append"] * 8 + ["insert", "set", "set", "drop"]),
        st.integers(0, 60),
        st.binary(max_size=4),
    ),
    max_size=120,
)


@given(st.lists(st.binary(max_size=4), min_size=MANY, max_size=60), STEPS)
def test_they_are_the_list_of_them(first: list[bytes], steps: list[tuple[str, int, bytes]]) -> None:
    plain, packed = list(first), Sketches(first)
    for step, number, data in steps:
        index = number % max(1, len(plain))
        if step == "append":
            plain.append(data)
            packed.insert(len(packed), data)
        elif step == "insert":
            plain.insert(index, data)
            packed.insert(index, data)
        elif step == "set" and plain:
            plain[index] = packed[index] = data
        elif step == "drop":
            del plain[:index], packed[:index]
        assert [packed[at] for at in range(len(packed))] == plain
