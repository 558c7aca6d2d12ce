"""The images as they are built: what runs in them."""

from __future__ import annotations

import pytest

from nexus_devtools.node import images

PROXY = "docker.io/library/nexus-proxy:latest"


def test_the_proxys_image_runs_compiled_code_and_holds_no_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COMPILED", raising=False)
    archive = images.product_archives()[PROXY]
    version = images.said(archive, "/opt/nexus-proxy/bin/nexus-proxy", "--version")
    assert "(compiled, Python 3." in version
    compilers = images.said(archive, "sh", "-c", "command -v cc gcc x86_64-linux-gnu-gcc; true")
    assert compilers == ""
    assert images.said(archive, "ls", "/opt").split() == ["nexus-proxy"]
