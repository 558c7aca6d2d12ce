"""Where the commands of a page run: a folder like a checkout, a shell, and what the page asks for.

* ``host``: no cluster.
* ``cluster``: a real API server with the kinds and the namespaces `team-a` and `shop`; in `team-a`
  two simulated backends with their LLMBackends, and the ServiceAccount `checkout` with a proxy's
  rights. kubectl's namespace is `team-a`.
* ``team``: that, and an operator and a proxy at work on it, with traffic behind them.

Promises that nothing is written into the checkout, and that everything ends with the stack. Pods
run in none of these: that is the node's world, see `tests/node`.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from nexus_devtools.backends import Script, SimulatedProcess
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.controlplane.paths import cache_root
from nexus_devtools.documents.curl import folder_with_curl
from nexus_devtools.documents.play import Player
from nexus_devtools.documents.shell import Shell
from nexus_devtools.e2e import backend, eventually
from nexus_devtools.product import REPOSITORY, Product, free_address

TEAM = "team-a"
NAMESPACES = (TEAM, "shop")
BACKENDS = ("vllm-a", "vllm-b")
MODEL = "llama-3.1-8b"
ACCOUNT = "checkout"
REQUESTS = 20
COPIED = ("crds", "manifests", "docs")
KINDS = "llmbackends,qualitypolicies,routingpolicies"


def checkout(folder: Path) -> Path:
    """What a page's commands use of the repository, where they may write beside it."""
    made = folder / "nexus"
    made.mkdir()
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__", "*.py[co]")
        shutil.copytree(REPOSITORY / name, made / name, ignore=ignored)
    (made / ".venv").symlink_to(sys.prefix)
    return made


def environment(folder: Path, *programs: Path, **more: str) -> dict[str, str]:
    """What the shell has: these folders of programs first, no proxies, a home of its own."""
    kept = {key: os.environ[key] for key in ("LANG", "LC_ALL", "TZ") if key in os.environ}
    path = ":".join((*map(str, programs), os.environ["PATH"]))
    # What is built once is found again, wherever home is.
    kept["XDG_CACHE_HOME"] = str(cache_root().parent.parent)
    return kept | {"PATH": path, "HOME": str(folder), **more}


def _ports() -> dict[int, int]:
    return {port: int(free_address().rpartition(":")[2]) for port in (8000, 8080, 9090)}


@dataclass(frozen=True, slots=True)
class Worlds:
    """Opens worlds on one API server of ours; `folder` is new for each."""

    plane: ControlPlane

    def open(self, world: str, folder: Path, stack: ExitStack) -> Player:
        """A player whose shell is in that world. Everything ends with the stack."""
        ports = _ports()
        given: dict[str, str] = {}
        if world != "host":
            self._clear()
            backends = {name: stack.enter_context(_simulated(name, folder)) for name in BACKENDS}
            product = Product(self.plane, TEAM, folder, stack)
            product.install(ACCOUNT)
            self._apply(*(backend(name, each.url) for name, each in backends.items()))
            if world == "team":
                self._work(product, ports)
            given["KUBECONFIG"] = str(self.kubeconfig(folder))
            given["KUBECACHEDIR"] = str(self.plane.kubectl_cache)
        # What a page does not say stays on this run's ports, too.
        given["NEXUS_LISTEN"] = f"127.0.0.1:{ports[8000]}"
        given["NEXUS_ADMIN_LISTEN"] = f"127.0.0.1:{ports[9090]}"
        own = Path(sys.executable).parent
        programs = (self.plane.kubectl.parent, own, folder_with_curl(folder))
        shell = stack.enter_context(
            Shell(checkout(folder), environment(folder, *programs, **given))
        )
        return Player(shell=shell, repository=REPOSITORY, ports=ports)

    def kubeconfig(self, folder: Path) -> Path:
        """The administrator's, in the team's namespace."""
        path = folder / "admin.kubeconfig"
        content = yaml.safe_load(self.plane.kubeconfig.read_text())
        for each in content["contexts"]:
            each["context"]["namespace"] = TEAM
        path.write_text(yaml.safe_dump(content))
        path.chmod(0o600)
        return path

    def prepare(self) -> None:
        """Once: the kinds and the namespaces."""
        self.plane.apply_crds()
        for name in NAMESPACES:
            self.plane.create_namespace(name)

    def _clear(self) -> None:
        for name in NAMESPACES:
            self.plane.run_kubectl("-n", name, "delete", KINDS, "--all", check=True)

    def _apply(self, *objects: object) -> None:
        text = yaml.safe_dump_all(objects)
        self.plane.run_kubectl("-n", TEAM, "apply", "-f", "-", input=text, check=True)

    def _work(self, product: Product, ports: dict[int, int]) -> None:
        """An operator and a proxy, whose ports are then the pages', and a few answers."""
        operator = product.operator()
        proxy = product.proxy(ACCOUNT, operator_url=operator.url)
        for port, url in ((8000, proxy.url), (8080, operator.url), (9090, proxy.admin_url)):
            ports[port] = int(url.rpartition(":")[2])
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
        with httpx.Client(base_url=proxy.url, trust_env=False, timeout=10) as client:

            def ask() -> int:
                return client.post("/v1/chat/completions", json=body).status_code

            eventually(ask, lambda status: status == httpx.codes.OK, what="an answer")
            for _ in range(REQUESTS):
                ask()


def _simulated(name: str, folder: Path) -> SimulatedProcess:
    script = Script(headers_seconds=0.01, tokens=3)
    return SimulatedProcess(name=name, models=[MODEL], script=script, log=folder / f"{name}.log")
