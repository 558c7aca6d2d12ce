"""Fenced blocks of a Markdown page, and the commands in them.

Promises every fenced block with its place, its language and its mark. A mark is a comment on the
line before the fence: `<!-- not run: why -->` for what no test can run, `<!-- world: node -->` for
what runs elsewhere than the rest of its page. In a `console` block a command begins with `$ `, goes
on after a backslash or within a here-document, and what follows is what it prints. It renders
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^( *)```(\w*)\s*$")
_MARK = re.compile(r"^ *<!-- (not run|world): (.+?) -->\s*$")
_HERE = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")
PROMPT = "$ "


@dataclass(frozen=True, slots=True)
class Command:
    """One command as it is typed, the line of its page, and the lines it is said to print."""

    line: int
    text: str
    shown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `page` is its path in the repository, `line` that of the fence."""

    page: str
    line: int
    language: str
    lines: tuple[str, ...]
    not_run: str = ""
    world: str = ""

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[Command]:
        """The commands of a `console` block, in order."""
        return list(_commands(self))


def pages(repository: Path) -> list[str]:
    """README and everything below docs, as paths in the repository."""
    found = [repository / "README.md", *sorted((repository / "docs").rglob("*.md"))]
    return [str(each.relative_to(repository)) for each in found]


def blocks_of(repository: Path, page: str) -> list[Block]:
    """The fenced blocks of one page. Raises ValueError for a fence without an end."""
    return list(_blocks(page, (repository / page).read_text("utf-8").splitlines()))


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    numbered = iter(enumerate(lines, 1))
    before = ""
    for number, line in numbered:
        opened = _FENCE.match(line)
        if not opened:
            before = line
            continue
        marked = _MARK.match(before)
        mark = {marked[1].replace(" ", "_"): marked[2]} if marked else {}
        inside = _inside(numbered, f"{page}:{number}", indented=len(opened[1]))
        yield Block(page, number, opened[2], tuple(inside), **mark)
        before = ""


def _inside(numbered: Iterator[tuple[int, str]], place: str, *, indented: int) -> Iterator[str]:
    for _, line in numbered:
        if _FENCE.match(line):
            return
        yield line[indented:]
    raise ValueError(f"{place}: this block has no end")


def _commands(block: Block) -> Iterator[Command]:
    rest = list(enumerate(block.lines, block.line + 1))
    while rest:
        number, line = rest.pop(0)
        if not line.startswith(PROMPT):
            continue
        typed = [line.removeprefix(PROMPT)]
        here = _HERE.search(typed[0])
        while rest and (typed[-1].endswith("\\") or (here and typed[-1] != here[1])):
            typed.append(rest.pop(0)[1])
        shown = []
        while rest and not rest[0][1].startswith(PROMPT):
            shown.append(rest.pop(0)[1])
        yield Command(number, "\n".join(typed), tuple(shown))
