"""The folder of a run: private, cleaned up, and its logs kept on failure alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nexus_devtools.demo.folder import Folder
from nexus_devtools.product import environment


def test_the_folder_and_its_secrets_are_the_users_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "demo")
    folder.create()
    secret = folder.secret("token", "abc")
    assert folder.path.stat().st_mode & 0o077 == 0
    assert secret.stat().st_mode & 0o077 == 0
    assert secret.read_text() == "abc"


def test_what_killed_runs_left_is_removed_and_what_lives_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for pid in (ended.pid, os.getppid()):
        (tmp_path / f"run-{pid}").mkdir()
    Folder(tmp_path).create()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"run-{os.getppid()}", f"run-{os.getpid()}"}


def test_after_a_failure_the_logs_stay_and_the_secrets_go(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.create()
    folder.log("operator").write_text("why")
    folder.secret("token", "abc")
    assert folder.remove(keep_logs=True)
    assert [path.name for path in folder.path.iterdir()] == ["operator.log"]
    assert not folder.remove(keep_logs=False)
    assert not folder.path.exists()


def test_a_failure_before_any_log_leaves_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.create()
    assert not folder.remove(keep_logs=True)
    assert not folder.path.exists()


def test_a_product_process_sees_its_own_kubeconfig_and_nothing_of_the_users(
    tmp_path: Path,
) -> None:
    os_environment = environment(tmp_path / "kubeconfig", home=tmp_path)
    assert os_environment["KUBECONFIG"] == str(tmp_path / "kubeconfig")
    assert os_environment["HOME"] == str(tmp_path)
    assert set(os_environment) <= {"PATH", "LANG", "LC_ALL", "TZ", "KUBECONFIG", "HOME"}
