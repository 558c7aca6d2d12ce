"""The control plane tool against itself: real processes, real API server, real kubectl.

These tests always use a control plane of our own, also where the session's is a given cluster.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nexus_devtools.controlplane import ControlPlane, ControlPlaneError, instance
from nexus_devtools.controlplane.processes import ProcessId, alive, read_pid_file
from nexus_devtools.controlplane.state import PID_FILES

DEADLINE_SECONDS = 60.0


@pytest.fixture(scope="module", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder of this module alone, and never a given cluster; builds are shared."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.setenv("NEXUS_TEST_KUBECONFIG", "")
        yield folder


@pytest.fixture(scope="module")
def plane(state_home: Path) -> Iterator[ControlPlane]:
    with ControlPlane.start("one") as plane:
        yield plane


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true before the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def processes_of(name: str) -> list[ProcessId]:
    found = instance.find(name)
    assert found is not None
    processes = [read_pid_file(found.folder / pid_file) for pid_file in PID_FILES]
    return [process for process in processes if process is not None]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nexus_devtools.controlplane", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS * 2,
    )


def test_it_serves_the_version_it_says(plane: ControlPlane) -> None:
    answer = plane.run_kubectl("version", "--output=json", check=True)
    versions = json.loads(answer.stdout)
    assert versions["serverVersion"]["gitVersion"] == versions["clientVersion"]["gitVersion"]
    assert versions["serverVersion"]["minor"].rstrip("+") >= "30"


def test_the_default_namespace_is_there_at_once(plane: ControlPlane) -> None:
    assert plane.run_kubectl("get", "namespace", "default").returncode == 0


def test_nothing_of_the_user_is_written_to(plane: ControlPlane, state_home: Path) -> None:
    assert plane.kubectl_cache.is_relative_to(state_home)
    plane.run_kubectl("get", "namespaces", check=True)
    assert plane.kubectl_cache.is_dir()


def test_down_ends_the_processes_and_removes_the_folder() -> None:
    plane = ControlPlane.start("short")
    processes = processes_of("short")
    folder = plane.kubeconfig.parent
    plane.down()
    assert len(processes) == 2
    assert not any(map(alive, processes))
    assert not folder.exists()


def test_two_run_at_once_and_know_nothing_of_each_other(plane: ControlPlane) -> None:
    with ControlPlane.start("two") as other:
        assert other.server != plane.server
        plane.create_namespace("only-in-one")
        assert plane.run_kubectl("get", "namespace", "only-in-one").returncode == 0
        missing = other.run_kubectl("get", "namespace", "only-in-one")
        assert "NotFound" in missing.stderr
        strange = other.run_kubectl("get", "namespaces", f"--server={plane.server}")
        assert strange.returncode != 0, "the CA of one vouches for the other"


def test_a_name_in_use_is_refused_and_names_the_process(plane: ControlPlane) -> None:
    with pytest.raises(ControlPlaneError, match=f"belongs to the running process {os.getpid()}"):
        ControlPlane.start(plane.name)


def test_when_its_python_is_killed_the_processes_die_and_the_next_start_cleans_up() -> None:
    script = (
        "import sys; from nexus_devtools.controlplane import ControlPlane\n"
        "with ControlPlane.start('victim'): print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "up\n"
        processes = processes_of("victim")
        assert all(map(alive, processes))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    assert eventually(lambda: not any(map(alive, processes)))
    left = instance.find("victim")
    assert left is not None
    with ControlPlane.start("unrelated"):
        assert not left.folder.exists(), "the folder of a dead run outlived the next start"


def test_an_instance_that_outlives_its_command_is_joined_listed_and_ended() -> None:
    try:
        assert command("up", "--name", "kept").returncode == 0
        first = processes_of("kept")
        assert command("up", "--name", "kept").returncode == 0
        assert processes_of("kept") == first
        assert "kept: up, https://127.0.0.1:" in command("status").stdout
        lines = command("env", "--name", "kept").stdout.splitlines()
        assert [line.partition("=")[0] for line in lines] == [
            "export KUBECONFIG",
            "export KUBECACHEDIR",
            "export PATH",
        ]
    finally:
        assert command("down", "--name", "kept").returncode == 0
    assert not any(map(alive, first))
    assert "kept" not in command("status").stdout


def test_one_whose_processes_were_killed_is_started_anew_by_up() -> None:
    try:
        assert command("up", "--name", "broken").returncode == 0
        for process in processes_of("broken"):
            os.kill(process.pid, signal.SIGKILL)
        assert eventually(lambda: not any(map(alive, processes_of("broken"))))
        assert "broken: dead" in command("status").stdout
        assert command("up", "--name", "broken").returncode == 0
        assert "broken: up" in command("status").stdout
    finally:
        assert command("down", "--name", "broken").returncode == 0


def test_an_up_killed_on_its_way_is_cleaned_up_by_the_next() -> None:
    arguments = [sys.executable, "-m", "nexus_devtools.controlplane", "up", "--name", "cut"]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as first:
        assert eventually(lambda: bool(instance.find("cut") and processes_of("cut")))
        first.send_signal(signal.SIGKILL)
    started = processes_of("cut")
    try:
        assert any(map(alive, started)), "nothing was left to clean up"
        assert command("up", "--name", "cut").returncode == 0
        assert not any(map(alive, started))
        assert "cut: up" in command("status").stdout
    finally:
        assert command("down", "--name", "cut").returncode == 0


def test_env_of_one_that_is_not_up_says_how_to_start_it() -> None:
    answer = command("env", "--name", "nobody")
    assert answer.returncode == 1
    assert "'nobody' is not up" in answer.stderr
    assert "up --name nobody" in answer.stderr


def test_a_stopped_api_server_comes_back_with_its_data_and_address(plane: ControlPlane) -> None:
    plane.create_namespace("kept")
    server = plane.server
    plane.stop_apiserver()
    assert plane.run_kubectl("get", "--raw=/readyz").returncode != 0
    plane.start_apiserver()
    assert plane.server == server
    assert plane.run_kubectl("get", "namespace", "kept").returncode == 0


def test_a_program_that_cannot_start_is_told_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("etcd", "kube-apiserver", "kubectl"):
        program = tmp_path / "assets" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\necho no luck today >&2; exit 3\n")
        program.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    with pytest.raises(ControlPlaneError, match=r"(?s)etcd ended while starting.*no luck today"):
        ControlPlane.start("unlucky")
    assert instance.find("unlucky") is None


def test_a_service_account_may_do_nothing_by_default(plane: ControlPlane, tmp_path: Path) -> None:
    kubeconfig = plane.write_kubeconfig(tmp_path / "app.kubeconfig", "default", "app")
    answer = plane.run_kubectl("get", "configmaps", kubeconfig=kubeconfig)
    assert answer.returncode != 0
    assert 'User "system:serviceaccount:default:app" cannot list resource' in answer.stderr
    assert kubeconfig.stat().st_mode & 0o077 == 0


def test_a_service_account_may_do_what_rbac_grants_it(plane: ControlPlane, tmp_path: Path) -> None:
    kubeconfig = plane.write_kubeconfig(tmp_path / "reader.kubeconfig", "default", "granted")
    role = ("create", "role", "reader", "--verb=list", "--resource=configmaps")
    plane.run_kubectl(*role, check=True)
    binding = (
        "create",
        "rolebinding",
        "reader",
        "--role=reader",
        "--serviceaccount=default:granted",
    )
    plane.run_kubectl(*binding, check=True)
    # The authorizer sees new rules through a watch, a moment later.
    assert eventually(
        lambda: plane.run_kubectl("get", "configmaps", kubeconfig=kubeconfig).returncode == 0
    )
    assert plane.run_kubectl("get", "secrets", kubeconfig=kubeconfig).returncode != 0


def review(plane: ControlPlane, token: str, audience: str) -> dict[str, object]:
    document = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    }
    arguments = ("create", "--filename=-", "--output=json")
    answer = plane.run_kubectl(*arguments, input=json.dumps(document), check=True)
    status = json.loads(answer.stdout)["status"]
    assert isinstance(status, dict)
    return status


def test_a_token_is_good_for_its_audience_alone(plane: ControlPlane) -> None:
    made_for_it = plane.identity("default", "proxy", audience="nexus-operator")
    general = plane.identity("default", "proxy")
    accepted = review(plane, made_for_it, "nexus-operator")
    assert accepted["authenticated"] is True
    assert accepted["audiences"] == ["nexus-operator"]
    assert review(plane, made_for_it, "somebody-else").get("authenticated") is not True
    assert review(plane, general, "nexus-operator").get("authenticated") is not True


def test_a_token_of_less_than_ten_minutes_is_refused_before_anything_is_asked(
    plane: ControlPlane,
) -> None:
    with pytest.raises(ControlPlaneError, match="600 seconds at least, not 30"):
        plane.identity("default", "app", expiration_seconds=30)


def test_a_namespace_is_gone_at_once_with_its_contents(plane: ControlPlane) -> None:
    plane.create_namespace("brief")
    plane.run_kubectl("create", "configmap", "thing", "--namespace=brief", check=True)
    plane.delete_namespace("brief")
    assert "NotFound" in plane.run_kubectl("get", "namespace", "brief").stderr
    left = plane.run_kubectl("get", "configmaps", "--namespace=brief", "--output=name", check=True)
    assert left.stdout == ""


def test_build_says_where_the_programs_are() -> None:
    folder = Path(command("build").stdout.strip())
    assert all((folder / name).exists() for name in ("etcd", "kube-apiserver", "kubectl"))


def test_build_builds_nothing_for_a_given_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given.kubeconfig"
    given.touch()
    monkeypatch.setenv("NEXUS_TEST_KUBECONFIG", str(given))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert command("build").stdout.startswith("nothing to build")
    assert not (tmp_path / "cache").exists()


def test_another_cluster_named_by_the_environment_is_used_as_it_is(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUS_TEST_KUBECONFIG", str(plane.kubeconfig))
    with ControlPlane.start("ignored") as given:
        assert given.server == plane.server
        assert not given.is_own
        assert given.ca_file.read_bytes() == plane.ca_file.read_bytes()
        assert given.identity("default", "app")
        with pytest.raises(ControlPlaneError, match="is not ours and cannot be stopped"):
            given.stop_apiserver()
    assert plane.run_kubectl("get", "--raw=/readyz").returncode == 0, "down() ended a given cluster"
