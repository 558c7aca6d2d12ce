"""The table as kubectl would print it: drawn again on a terminal, repeated sparingly elsewhere."""

from __future__ import annotations

import io

from nexus_devtools.demo.view import Frame, LiveView, PlainView, table, view_for
from nexus_devtools.demo.watch import Row


def frame(state: str = "Active", errors: str = "0%") -> Frame:
    return Frame(
        columns=("NAME", "STATE", "ERRORS-1H"),
        rows=[
            Row("gemma", ("gemma", "Active", ""), "Active", ("gemma3-270m",)),
            Row("sim-a", ("sim-a", state, errors), state, ("demo-chat",)),
        ],
        shares={"gemma": None, "sim-a": 0.5},
        footer="requests 3",
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_columns_are_aligned_and_blank_where_there_is_no_data() -> None:
    assert table(frame()) == [
        "NAME    STATE    ERRORS-1H   SHARE-NOW",
        "gemma   Active",
        "sim-a   Active   0%          50%",
    ]


def test_the_view_suits_the_stream() -> None:
    assert isinstance(view_for(Terminal()), LiveView)
    assert isinstance(view_for(io.StringIO()), PlainView)


def test_a_terminals_table_is_erased_before_it_is_drawn_again() -> None:
    stream = Terminal()
    view = LiveView(stream)
    view.show(frame())
    assert "\x1b[" not in stream.getvalue()
    view.show(frame(errors="7%"))
    # Blank line, head, two rows, blank line, footer.
    assert "\x1b[6A\x1b[J" in stream.getvalue()
    assert stream.getvalue().endswith("requests 3\n")


def test_what_is_said_stays_above_the_table() -> None:
    stream = Terminal()
    view = LiveView(stream)
    view.show(frame())
    view.say("sim-a breaks")
    after = stream.getvalue().partition("\x1b[6A\x1b[J")[2]
    assert after.index("sim-a breaks") < after.index("NAME")


def test_without_a_terminal_the_table_comes_when_a_state_changes() -> None:
    stream = io.StringIO()
    view = PlainView(stream)
    view.show(frame())
    once = stream.getvalue()
    view.show(frame(errors="7%"))
    assert stream.getvalue() == once
    view.show(frame(state="Excluded", errors="50%"))
    assert "Excluded" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
