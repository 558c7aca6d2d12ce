"""Plays the blocks of a page in a shell, and says at which line what went wrong.

Promises: each command ends with code 0, a server answers before the next command is typed, a table
that is shown has the head that is printed, and `make TARGET` names a target there is (what it does
has tests of its own). Addresses are this run's, see `ports`: the pages' own may be taken. What is
only shown as an example of output is not compared beyond that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nexus_devtools.documents.markdown import Block, Command
from nexus_devtools.documents.shell import Shell

SECONDS = 60.0
_MAKE = re.compile(r"\bmake(?: -s)?(?: (?P<target>[a-z][a-z-]*))?\b")
_FORWARD = re.compile(r"(port-forward \S+) (\d+)$")
_HEAD = re.compile(r"^NAME(  +[A-Z0-9()-]+)+ *$")
_SERVERS = (
    (re.compile(r"^(\S+/)?nexus-operator "), "http://127.0.0.1:8080/readyz"),
    (re.compile(r"^(\S+/)?nexus-proxy "), "http://127.0.0.1:9090/readyz"),
    (re.compile(r"^kubectl .*port-forward "), "http://127.0.0.1:8080/"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """Plays blocks. `ports` are this run's for the pages' own; commands have `seconds` each."""

    shell: Shell
    repository: Path
    ports: Mapping[int, int] = field(default_factory=dict)
    seconds: float = SECONDS

    def play(self, blocks: Iterable[Block]) -> int:
        """How many commands were run. AssertionError with the place of the first that failed."""
        played = 0
        for block in blocks:
            if block.language == "python":
                self._run(block.place, self.adapted(f"python - <<'END'\n{block.text}END"))
                played += 1
                continue
            for command in block.commands():
                self._command(f"{block.page}:{command.line}", command)
                played += 1
        return played

    def _command(self, place: str, command: Command) -> None:
        made = _MAKE.search(command.text)
        if made:
            known = targets(self.repository)
            assert made["target"] is None or made["target"] in known, f"{place}: no such target"
            return
        text = self.adapted(command.text)
        for pattern, url in _SERVERS:
            if pattern.search(command.text):
                self.shell.serve(text, url=self.adapted(url), seconds=SECONDS)
                return
        printed = self._run(place, text)
        for line in command.shown:
            if _HEAD.match(line):
                heads = [each.split() for each in printed.splitlines()]
                assert line.split() in heads, f"{place}: {line!r} is shown, {printed!r} printed"

    def _run(self, place: str, text: str) -> str:
        code, printed = self.shell.run(text, seconds=self.seconds)
        assert code == 0, f"{place}: {text}\nended with code {code}:\n{printed}"
        return printed

    def adapted(self, text: str) -> str:
        """The text with this run's ports on loopback."""
        for port, ours in self.ports.items():
            text = re.sub(rf"127\.0\.0\.1:{port}\b", f"127.0.0.1:{ours}", text)
        return _FORWARD.sub(self._forward, text)

    def _forward(self, found: re.Match[str]) -> str:
        port = int(found[2])
        return f"{found[1]} {self.ports.get(port, port)}:{port}"


def targets(repository: Path) -> set[str]:
    """The targets of the Makefile that are described."""
    text = (repository / "Makefile").read_text("utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):.*## ", text, re.MULTILINE))
