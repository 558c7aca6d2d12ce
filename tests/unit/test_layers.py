"""The import layers: nexus_api below nexus_quality below operator and proxy, which know
nothing of each other.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "nexus_api": ROOT / "crds",
    "nexus_quality": ROOT / "quality",
    "nexus_operator": ROOT / "operator",
    "nexus_proxy": ROOT / "proxy",
}
ALLOWED = {
    "nexus_api": set(),
    "nexus_quality": {"nexus_api"},
    "nexus_operator": {"nexus_api", "nexus_quality"},
    "nexus_proxy": {"nexus_api", "nexus_quality"},
}
PROXY_PACKAGES = {"msgspec", "prometheus_client", "httpx", "httptools", "uvloop", "yaml"}
THIRD_PARTY = {
    "nexus_api": {"msgspec"},
    "nexus_quality": {"msgspec"},
    "nexus_proxy": PROXY_PACKAGES,
}
KUBERNETES_LIBRARIES = {"kopf", "kubernetes", "pykube", "pykube-ng"}


def imports(package: str) -> dict[str, set[str]]:
    """Top-level names that each file of a package imports."""
    found: dict[str, set[str]] = {}
    for path in sorted((SOURCES[package] / package).rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add((node.module or "").partition(".")[0])
        found[str(path.relative_to(ROOT))] = names
    assert found, f"no source files of {package}"
    return found


@pytest.mark.parametrize("package", SOURCES)
def test_a_package_imports_only_the_layers_below_it(package: str) -> None:
    ours = {*SOURCES, "nexus_devtools"} - ALLOWED[package] - {package}
    wrong = {path: names & ours for path, names in imports(package).items() if names & ours}
    assert not wrong


@pytest.mark.parametrize("package", THIRD_PARTY)
def test_a_package_imports_only_the_libraries_it_may(package: str) -> None:
    known = {*sys.stdlib_module_names, *SOURCES, *THIRD_PARTY[package]}
    wrong = {path: names - known for path, names in imports(package).items() if names - known}
    assert not wrong


def test_the_operator_folder_is_no_package_of_its_own() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_the_proxy_extra_names_no_kubernetes_library() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["proxy"]]
    names = {re.split(r"[^A-Za-z0-9._-]", each)[0].lower() for each in wanted}
    assert {"httpx", "httptools", "uvloop", "msgspec", "prometheus-client"} <= names
    assert not names & KUBERNETES_LIBRARIES


def test_the_proxys_pinned_packages_hold_no_kubernetes_library() -> None:
    pinned = (ROOT / "requirements" / "proxy.txt").read_text("utf-8")
    names = set(re.findall(r"^([A-Za-z0-9._-]+)==", pinned, re.MULTILINE))
    assert "httpx" in names
    assert not names & KUBERNETES_LIBRARIES
