"""Which page's commands run where; a block's own mark goes before its page's row.

`node` is the project's own node with the product on it, see `tests/node`; the others are opened by
`worlds`. What a page takes for granted, because it is about something that a reader has, is made by
its row in BEFOREHAND.
"""

from __future__ import annotations

from pathlib import Path

from nexus_devtools.documents.markdown import Block, blocks_of

HOST, CLUSTER, TEAM, NODE = "host", "cluster", "team", "node"
LANGUAGES = frozenset({"console", "bash", "sh", "python"})
GITOPS = "docs/examples/gitops"

WORLDS = {
    "README.md": CLUSTER,
    "docs/concepts.md": TEAM,
    "docs/development.md": HOST,
    f"{GITOPS}/README.md": CLUSTER,
    "docs/install.md": CLUSTER,
    "docs/operations.md": CLUSTER,
    "docs/page.md": NODE,
    "docs/policies.md": TEAM,
    "docs/security.md": CLUSTER,
    "docs/sidecar-and-gateway.md": CLUSTER,
    "docs/troubleshooting.md": TEAM,
    "docs/upgrade.md": NODE,
}
BEFOREHAND = {
    f"{GITOPS}/README.md": (
        "kubectl create namespace models",
        f"kubectl -n models apply -f {GITOPS}/models/changes/stricter-local/policy.yaml",
    ),
}


def commands(repository: Path, page: str) -> list[Block]:
    """The blocks of a page that are commands."""
    return [each for each in blocks_of(repository, page) if each.language in LANGUAGES]


def in_world(repository: Path, page: str, world: str) -> list[Block]:
    """Those of them that run in this world."""
    return [
        each
        for each in commands(repository, page)
        if not each.not_run and (each.world or WORLDS[page]) == world
    ]
