"""Every command block of README and docs is run, each page in its world, top to bottom.

What cannot be run is marked in the page, with the reason, and listed here: neither list grows
without the other.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from nexus_devtools.documents import pages
from nexus_devtools.documents.table import BEFOREHAND, NODE, WORLDS, commands, in_world
from nexus_devtools.documents.worlds import Worlds

REPOSITORY = Path(__file__).parents[2]
NOT_RUN: dict[str, tuple[str, ...]] = {
    "docs/development.md": ("needs the wheel that make compiled takes a minute to build",),
    "docs/install.md": ("needs a container engine and its base image", "needs kind"),
    "docs/sidecar-and-gateway.md": ("needs a pod that waits for its proxy",),
}


@pytest.mark.apiserver
@pytest.mark.parametrize("page", [page for page, world in WORLDS.items() if world != NODE])
def test_every_command_of_the_page_does_what_the_page_wants(
    page: str, worlds: Worlds, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        player = worlds.open(WORLDS[page], tmp_path, stack)
        for command in BEFOREHAND.get(page, ()):
            assert player.shell.run(command, seconds=player.seconds)[0] == 0, command
        assert player.play(in_world(REPOSITORY, page, WORLDS[page])) > 0


def test_each_page_with_commands_has_a_world() -> None:
    assert sorted(page for page in pages(REPOSITORY) if commands(REPOSITORY, page)) == sorted(
        WORLDS
    )


def test_what_no_test_runs_is_listed_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, tuple[str, ...]] = {}
    for page in WORLDS:
        skipped = [each for each in commands(REPOSITORY, page) if each.not_run]
        if skipped:
            found[page] = tuple(each.not_run for each in skipped)
        for each in skipped:
            with capsys.disabled():
                print(f"\n{each.place} is not run: {each.not_run}", end="")  # noqa: T201
    assert found == NOT_RUN


def test_blocks_of_a_shell_are_written_as_a_console_with_prompts() -> None:
    for page in WORLDS:
        for each in commands(REPOSITORY, page):
            assert each.language in ("console", "python"), each.place
            assert each.language == "python" or each.commands(), f"{each.place}: no command"
