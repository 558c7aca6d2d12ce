"""The command: ``python -m nexus_devtools.controlplane up|down|status|env|build [--name NAME]``,
and ``build --oldest`` for the oldest release of Kubernetes that is supported.

Exit codes: 0 done, 1 failed, 2 wrong usage. Results go to stdout, progress and errors to stderr.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable

from nexus_devtools.controlplane import instance
from nexus_devtools.controlplane.build import OLDEST, built_programs
from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.controlplane.given import given_kubeconfig
from nexus_devtools.controlplane.plane import ControlPlane
from nexus_devtools.controlplane.programs import find_programs
from nexus_devtools.controlplane.progress import Progress
from nexus_devtools.controlplane.state import APISERVER_PID, ETCD_PID

DEFAULT_NAME = "dev"


def up(options: argparse.Namespace) -> None:
    """Start an instance that outlives this command, or join it."""
    plane = ControlPlane.up(options.name)
    print(f"control plane {plane.name!r}: {plane.server} ready after {plane.ready_seconds:.1f} s")
    print(f'  eval "$({_command("env", plane.name)})"   to use it with kubectl')
    print(f"  {_command('down', plane.name)}   to end it")


def down(options: argparse.Namespace) -> None:
    """End an instance."""
    found = instance.find(options.name)
    if found is None:
        print(f"control plane {options.name!r} is not up")
        return
    with Progress(f"ending control plane {options.name!r}"):
        found.destroy(keep_logs=options.keep_logs)
    logs = f", its logs are in {found.folder / 'logs'}" if options.keep_logs else ""
    print(f"control plane {options.name!r} is down{logs}")


def status(options: argparse.Namespace) -> None:
    """One line per instance of this user."""
    found = instance.find_all()
    if not found:
        print("no control plane is up")
    for each in found:
        ports = each.state.ports
        print(
            f"{each.state.name}: {condition(each)}, https://127.0.0.1:{ports.apiserver}, "
            f"logs in {each.folder / 'logs'}"
        )


def condition(found: instance.Instance) -> str:
    """What an instance is doing, in a word or two."""
    if not found.state.ready:
        return "starting"
    etcd, apiserver = found.runs(ETCD_PID), found.runs(APISERVER_PID)
    if etcd:
        return "up" if apiserver else "API server stopped"
    return "dead (up starts it anew, down removes it)"


def env(options: argparse.Namespace) -> None:
    """Lines for a shell's eval that point kubectl at an instance."""
    plane = ControlPlane.find(options.name)
    if plane is None:
        raise ControlPlaneError(
            f"control plane {options.name!r} is not up: {_command('up', options.name)}"
        )
    print(f"export KUBECONFIG={shlex.quote(str(plane.kubeconfig))}")
    print(f"export KUBECACHEDIR={shlex.quote(str(plane.kubectl_cache))}")
    print(f'export PATH={shlex.quote(str(plane.kubectl.parent))}:"$PATH"')


def build(options: argparse.Namespace) -> None:
    """Build the programs if they are needed and not there, and say where they are."""
    if options.oldest:
        print(built_programs(OLDEST))
        return
    cluster = given_kubeconfig()
    if cluster is not None:
        print(f"nothing to build: the cluster of {cluster} is used")
        return
    print(find_programs())


def _command(verb: str, name: str) -> str:
    suffix = "" if name == DEFAULT_NAME else f" --name {name}"
    return f"{sys.executable} -m nexus_devtools.controlplane {verb}{suffix}"


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "up": up,
    "down": down,
    "status": status,
    "env": env,
    "build": build,
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line; wrong usage ends the process with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m nexus_devtools.controlplane",
        description="A real Kubernetes API server, without root.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(COMMANDS))
    for verb, run in COMMANDS.items():
        sub = verbs.add_parser(verb, help=run.__doc__)
        if verb not in ("status", "build"):
            sub.add_argument("--name", default=DEFAULT_NAME, help="which instance (default: dev)")
        if verb == "down":
            sub.add_argument("--keep-logs", action="store_true", help="leave the logs in place")
        if verb == "build":
            oldest = f"of Kubernetes {OLDEST.version}, the oldest supported"
            sub.add_argument("--oldest", action="store_true", help=oldest)
    return parser.parse_args(arguments)


def main() -> int:
    """Run the command."""
    options = parse(sys.argv[1:])
    try:
        COMMANDS[options.verb](options)
    except ControlPlaneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
