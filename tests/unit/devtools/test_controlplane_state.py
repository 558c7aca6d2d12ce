"""State folders: saved and read back, found, and swept when nobody owns them any more."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import pytest

from nexus_devtools.controlplane import state as files
from nexus_devtools.controlplane.cleanup import destroy, is_orphan, sweep
from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.controlplane.paths import cache_root, instance_folder, state_root
from nexus_devtools.controlplane.ports import HIGHEST, LOWEST, choose_ports
from nexus_devtools.controlplane.processes import ProcessId
from nexus_devtools.controlplane.state import Ports, State

PORTS = Ports(20001, 20002, 20003)


class Table:
    """Processes that end at the first request."""

    def __init__(self, running: dict[int, str]) -> None:
        self.running = running
        self.ended: list[int] = []

    def started(self, pid: int) -> str | None:
        return self.running.get(pid)

    def signal(self, pid: int, number: int) -> None:
        assert number == signal.SIGTERM
        self.ended.append(pid)
        del self.running[pid]


def make(root: Path, name: str, owner: ProcessId | None, pids: tuple[int, int]) -> Path:
    """An instance whose API server and etcd have these pids."""
    folder = root / name
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "etcd.log").write_text("it was etcd\n")
    (folder / "etcd").mkdir()
    files.save(folder, State(name, PORTS, "/programs", owner=owner, ready=True))
    for file, pid in zip(files.PID_FILES, pids, strict=True):
        (folder / file).write_text(json.dumps({"pid": pid, "started": "monday"}))
    return folder


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    state = State("demo", PORTS, "/programs", owner=ProcessId(7, "monday"), ready=True)
    files.save(tmp_path, state)
    assert files.load(tmp_path) == state
    assert [path.name for path in tmp_path.iterdir()] == [files.FILE]


def test_there_is_no_state_where_there_is_no_file(tmp_path: Path) -> None:
    assert files.load(tmp_path) is None
    assert files.load(tmp_path / "nowhere") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "demo"}'])
def test_a_damaged_state_is_named_with_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / files.FILE).write_text(content)
    with pytest.raises(ControlPlaneError, match=r"state\.json is damaged .* remove the folder"):
        files.load(tmp_path)


def test_the_api_server_is_ended_before_its_etcd(tmp_path: Path) -> None:
    folder = make(tmp_path, "demo", None, (11, 12))
    table = Table({11: "monday", 12: "monday"})
    destroy(folder, table=table)
    assert table.ended == [11, 12]
    assert not folder.exists()


def test_pids_used_again_by_others_are_not_touched(tmp_path: Path) -> None:
    folder = make(tmp_path, "demo", None, (11, 12))
    table = Table({11: "tuesday", 12: "wednesday"})
    destroy(folder, table=table)
    assert table.ended == []
    assert not folder.exists()


def test_logs_are_kept_when_asked_and_nothing_else(tmp_path: Path) -> None:
    folder = make(tmp_path, "demo", None, (11, 12))
    destroy(folder, keep_logs=True, table=Table({}))
    assert [path.name for path in folder.rglob("*")] == ["logs", "etcd.log"]
    assert files.load(folder) is None


def test_only_instances_whose_owner_is_gone_are_swept(tmp_path: Path) -> None:
    make(tmp_path, "of-the-dead", ProcessId(1, "monday"), (11, 12))
    make(tmp_path, "of-a-reused-pid", ProcessId(2, "monday"), (21, 22))
    make(tmp_path, "of-the-living", ProcessId(3, "monday"), (31, 32))
    make(tmp_path, "of-nobody", None, (41, 42))
    running = dict.fromkeys((3, 11, 12, 21, 22, 31, 32, 41, 42), "monday") | {2: "tuesday"}
    table = Table(running)
    assert sweep(tmp_path, table) == ["of-a-reused-pid", "of-the-dead"]
    assert table.ended == [21, 22, 11, 12]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["of-nobody", "of-the-living"]


def test_an_instance_without_owner_is_no_orphan() -> None:
    assert not is_orphan(State("demo", PORTS, "/programs"), Table({}))


@pytest.mark.parametrize("name", ["", "-a", "A", "a/b", "..", "a" * 41, ".lock"])
def test_a_name_that_would_leave_the_state_folder_is_refused(name: str) -> None:
    with pytest.raises(ControlPlaneError, match="is no name for a control plane"):
        instance_folder(name)


def test_folders_follow_the_environment_and_ignore_relative_paths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert state_root() == Path("/somewhere/nexus-kubernetes/controlplane")
    assert cache_root() == Path.home() / ".cache/nexus-kubernetes/controlplane"


def test_ports_are_three_different_free_ones_that_nobody_claims() -> None:
    taken = set(range(LOWEST, HIGHEST - 9))
    even = choose_ports(taken, free=lambda port: port % 2 == 0, chance=random.Random(1))
    chosen = {even.apiserver, even.etcd_client, even.etcd_peer}
    assert len(chosen) == 3
    assert not chosen & taken
    assert all(port % 2 == 0 for port in chosen)


def test_without_free_ports_it_says_so() -> None:
    with pytest.raises(ControlPlaneError, match="no three free ports"):
        choose_ports((), free=lambda port: False)
