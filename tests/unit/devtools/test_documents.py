"""Blocks, commands and the shell in which the documents are played."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from nexus_devtools.documents import (
    Block,
    Command,
    Player,
    Shell,
    ShellError,
    blocks_of,
    curl,
    pages,
)

PAGE = """# A page

```console
$ echo one \\
    two
one two
$ cat <<END
$ not a prompt
END
```

<!-- world: node -->
```console
$ true
```

   <!-- not run: needs a cloud -->
   ```console
   $ false
   ```

```yaml
kind: Secret
```
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "README.md").write_text(PAGE)
    (tmp_path / "docs" / "deep" / "page.md").write_text("nothing\n")
    (tmp_path / "Makefile").write_text("known: ## is described\n")
    return tmp_path


@pytest.fixture
def player(repository: Path) -> Iterator[Player]:
    with Shell(repository, {"PATH": "/usr/bin:/bin"}) as shell:
        yield Player(shell=shell, repository=repository, ports={8000: 18000}, seconds=10)


def console(*lines: str) -> Block:
    return Block("page.md", 1, "console", lines)


def test_every_page_is_found(repository: Path) -> None:
    assert pages(repository) == ["README.md", "docs/deep/page.md"]


def test_blocks_have_their_place_their_mark_and_no_indentation(repository: Path) -> None:
    first, node, cloud, yaml = blocks_of(repository, "README.md")
    assert (first.line, first.language, first.world, first.not_run) == (3, "console", "", "")
    assert node.world == "node"
    assert (cloud.not_run, cloud.lines) == ("needs a cloud", ("$ false",))
    assert yaml.text == "kind: Secret\n"


def test_a_command_goes_on_after_a_backslash_and_in_a_here_document(repository: Path) -> None:
    first = blocks_of(repository, "README.md")[0]
    assert first.commands() == [
        Command(4, "echo one \\\n    two", ("one two",)),
        Command(7, "cat <<END\n$ not a prompt\nEND", ()),
    ]


def test_a_block_without_an_end_is_an_error(repository: Path) -> None:
    (repository / "README.md").write_text("```console\n$ true\n")
    with pytest.raises(ValueError, match=r"README\.md:1: this block has no end"):
        blocks_of(repository, "README.md")


def test_what_one_command_exports_the_next_one_has(player: Player) -> None:
    assert player.play([console("$ export WORD=here", '$ test "$WORD" = here')]) == 2


@pytest.mark.parametrize(
    "command", ["false", "exit_code() { return 3; }; exit_code", "false | cat"]
)
def test_a_command_that_fails_is_told_with_its_place(player: Player, command: str) -> None:
    with pytest.raises(AssertionError, match=r"page.md:2: .*\nended with code"):
        player.play([console(f"$ {command}")])


def test_a_command_that_is_late_is_told(player: Player) -> None:
    with pytest.raises(ShellError, match="not at its end in time"):
        player.shell.run("sleep 5", seconds=0.1)


def test_a_target_of_make_must_be_there_and_is_not_made(player: Player) -> None:
    player.play([console("$ make known   # with a word on it")])
    with pytest.raises(AssertionError, match="no such target"):
        player.play([console("$ make unknown")])


def test_the_head_of_a_table_must_be_the_one_that_is_printed(player: Player) -> None:
    player.play([console("$ printf 'NAME STATE\\na b\\n'", "NAME   STATE", "c      d")])
    with pytest.raises(AssertionError, match="is shown"):
        player.play([console("$ printf 'NAME STATE\\n'", "NAME   AGE")])


def test_the_ports_of_a_page_are_this_runs(player: Player) -> None:
    assert player.adapted("curl http://127.0.0.1:8000/v1") == "curl http://127.0.0.1:18000/v1"
    assert player.adapted("kubectl port-forward x 8000") == "kubectl port-forward x 18000:8000"


class Echo(BaseHTTPRequestHandler):
    """Says what it was sent; 404 to a GET of /none."""

    def do_GET(self) -> None:
        self.send_response(404 if self.path == "/none" else 200)
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody reads it."""


def test_our_curl_stands_in_where_there_is_none(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(repository))
    programs = curl.folder_with_curl(repository)
    with HTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with Shell(repository, {"PATH": f"{programs}:/usr/bin:/bin"}) as shell:
            assert shell.run(f"curl -fsS {url}/ -d '{{\"a\": 1}}'", seconds=30) == (0, '{"a": 1}')
            assert shell.run(f"curl -fsS {url}/none", seconds=30)[0] == curl.REFUSED
        server.shutdown()
