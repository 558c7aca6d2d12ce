"""Every YAML block of README and docs is YAML; whole objects are taken by a real API server, and
kustomizations are rendered by the real kustomize.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus_devtools.documents import Block, blocks_of, pages
from nexus_devtools.documents.worlds import Worlds, checkout

REPOSITORY = Path(__file__).parents[2]
KUSTOMIZATION = "# kustomization.yaml"
BLOCKS = [
    each
    for page in pages(REPOSITORY)
    for each in blocks_of(REPOSITORY, page)
    if each.language == "yaml"
]


def documents(block: Block) -> list[Any]:
    """What the block holds. Raises yaml.YAMLError."""
    return [each for each in yaml.safe_load_all(block.text) if each is not None]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_every_block_is_yaml(block: Block) -> None:
    assert documents(block)


@pytest.mark.apiserver
def test_every_object_is_taken_by_a_server(worlds: Worlds) -> None:
    kubectl = worlds.plane.run_kubectl
    taken = 0
    for block in BLOCKS:
        whole = all({"apiVersion", "kind", "metadata"} <= set(each) for each in documents(block))
        if whole:
            answer = kubectl("apply", "--dry-run=server", "-f", "-", input=block.text)
            assert answer.returncode == 0, f"{block.place}: {answer.stderr}"
            assert "Warning" not in answer.stderr, f"{block.place}: {answer.stderr}"
            taken += 1
    assert taken >= 4


def test_every_kustomization_is_rendered(worlds: Worlds, tmp_path: Path) -> None:
    root = checkout(tmp_path)
    rendered = 0
    for block in BLOCKS:
        if block.lines[0] == KUSTOMIZATION:
            folder = root / f"overlay-{rendered}"
            folder.mkdir()
            (folder / "kustomization.yaml").write_text(block.text)
            answer = worlds.plane.run_kubectl("kustomize", folder)
            assert answer.returncode == 0, f"{block.place}: {answer.stderr}"
            assert list(yaml.safe_load_all(answer.stdout)), block.place
            rendered += 1
    assert rendered >= 4
