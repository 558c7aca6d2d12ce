"""The operator's page in a real Chromium, over both ways that kubectl has into a cluster."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from nexus_devtools.browser import browsing, ready_chromium
from nexus_devtools.node.cluster import Cluster
from nexus_devtools.product import free_address

LIVE = "document.getElementById('link').dataset.state === 'live'"
PROXIED = "/api/v1/namespaces/nexus-system/services/nexus-operator:http/proxy/"


@pytest.fixture(params=["port-forward", "proxy"])
def address(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """Where the page is to be had on loopback; kubectl ends with the test."""
    port = free_address().rpartition(":")[2]
    commands = {
        "port-forward": (
            *("-n", "nexus-system", "port-forward", "service/nexus-operator", f"{port}:8080"),
        ),
        "proxy": ("proxy", f"--port={port}"),
    }
    kubectl = cluster.kubectl
    command = [str(kubectl.program), "--kubeconfig", str(kubectl.kubeconfig)]
    with ExitStack() as stack:
        child = subprocess.Popen(
            [*command, *commands[request.param]], stdout=subprocess.PIPE, text=True
        )
        stack.callback(child.communicate)
        stack.callback(child.terminate)
        assert child.stdout is not None
        assert re.search(r"Forwarding|Starting to serve", child.stdout.readline())
        path = PROXIED if request.param == "proxy" else "/"
        yield f"http://127.0.0.1:{port}{path}"


async def test_the_page_is_live_and_follows(address: str, shop: Any) -> None:
    shop.apply(
        {
            "apiVersion": "nexus.dev/v1alpha1",
            "kind": "LLMBackend",
            "metadata": {"name": "looked-at"},
            "spec": {"url": "http://nobody.models.svc:8000", "type": "vllm"},
        }
    )
    row = "document.querySelector('#rows')?.textContent"
    async with browsing(ready_chromium()) as tab:
        await tab.goto(address)
        await tab.until(f"{LIVE} && ({row} || '').includes('{shop.namespace}')", seconds=30)
        patch = (
            "patch",
            "llmbackend",
            "looked-at",
            "--type=merge",
            "-p",
            '{"spec":{"suspend":true}}',
        )
        await asyncio.to_thread(shop.run, *patch)
        await tab.until(f"{row}.includes('Suspended')", seconds=5)
        assert tab.errors == []
