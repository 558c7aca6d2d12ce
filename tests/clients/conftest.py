"""One place per session: llama.cpp, llmock, fakellm and aimock behind one proxy, all tapped."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from nexus_devtools.backends import ModelProcess
from nexus_devtools.realworld import servers, standalone
from nexus_devtools.realworld.lab import Lab, ready_lab
from nexus_devtools.realworld.place import CLIENTS_KEY, Place, manifest, quality
from nexus_devtools.realworld.tap import Tap

SERVED = {
    "llamacpp": ("gemma3-270m",),
    "llmock": ("gpt-4o", "text-embedding-3-small"),
    "fakellm": ("fakellm-1",),
    "aimock": ("aimock-1", "aimock-embed"),
}
"""The models of each server that the tests ask for; llama.cpp and llmock say so themselves."""


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    """The real clients and servers, installed first if need be."""
    manager = request.config.pluginmanager.getplugin("capturemanager")
    quiet = contextlib.nullcontext() if manager is None else manager.global_and_fixture_disabled()
    with quiet:
        return ready_lab()


@pytest.fixture(scope="session")
def urls(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where the real servers listen."""
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        found = {}
        for name in servers.SERVERS:
            server = servers.start(name, lab, folder)
            stack.callback(server.child.stop)
            found[name] = server.url
        model = stack.enter_context(ModelProcess(log=folder / "llamacpp.log"))
        yield found | {"llamacpp": model.url}


@pytest.fixture(scope="session")
def place(urls: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """All of it, with every model served."""
    with ExitStack() as stack:
        backs = {name: stack.enter_context(Tap(url)) for name, url in urls.items()}
        listed = {
            "fakellm": [{"name": "fakellm-1"}],
            "aimock": [
                {"name": "aimock-1", "capabilities": ["tools", "json"]},
                {"name": "aimock-embed", "capabilities": ["embeddings"]},
            ],
        }
        types = {"llamacpp": "llamacpp"}
        documents = [
            manifest(
                name,
                tap.url,
                type=types.get(name, "generic"),
                **({"models": listed[name]} if name in listed else {}),
            )
            for name, tap in backs.items()
        ]
        proxy = standalone.start(
            tmp_path_factory.mktemp("proxy"),
            [*documents, quality()],
            models=[model for models in SERVED.values() for model in models],
        )
        stack.callback(proxy.child.stop)
        front = stack.enter_context(Tap(proxy.url))
        yield Place(proxy=proxy, front=front, backs=backs)


@pytest.fixture
def client(place: Place) -> Iterator[openai.OpenAI]:
    """The official client, without retries of its own."""
    with openai.OpenAI(base_url=place.url, api_key=CLIENTS_KEY, max_retries=0) as made:
        yield made


@pytest.fixture
def small_place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """Makes a place of a test's own: `small_place({"name": url}, document...)`."""
    with ExitStack() as stack:

        def make(
            backends: dict[str, str],
            *documents: Any,
            models: tuple[str, ...],
            environment: dict[str, str] | None = None,
            specs: dict[str, dict[str, Any]] | None = None,
        ) -> Place:
            backs = {name: stack.enter_context(Tap(url)) for name, url in backends.items()}
            own = [
                manifest(name, tap.url, **(specs or {}).get(name, {}))
                for name, tap in backs.items()
            ]
            proxy = standalone.start(
                tmp_path / "proxy", [*own, *documents], models=models, environment=environment
            )
            stack.callback(proxy.child.stop)
            front = stack.enter_context(Tap(proxy.url))
            return Place(proxy=proxy, front=front, backs=backs)

        yield make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What could not be part of this run is said where everybody looks."""
    if shutil.which("curl") is None:
        terminalreporter.write_line(
            "NOT TESTED: the program curl (it is not on this machine); libcurl stood in for it",
            yellow=True,
        )
