"""What others publish and the monitoring manifests are held against: the Prometheus Operator's
custom resource definitions.

They come from its Go module, pinned by hash in `devtools/monitoring`, and lie in Go's own module
cache. Nothing of that operator is built or run.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.controlplane.golang import find_go, go_environment
from nexus_devtools.controlplane.paths import REPOSITORY, cache_root

GO_MODULE = REPOSITORY / "devtools" / "monitoring"
MODULE = "github.com/prometheus-operator/prometheus-operator"
PLURALS = ("servicemonitors", "podmonitors", "prometheusrules")
GROUP = "monitoring.coreos.com"


def published_crds() -> list[Path]:
    """The CRDs of the three kinds that ship here, downloaded first if they are not there yet."""
    command = [str(find_go(cache_root())), "mod", "download", "-json", MODULE]
    answer = subprocess.run(
        command, cwd=GO_MODULE, env=go_environment(), capture_output=True, text=True, check=False
    )
    told = json.loads(answer.stdout or "{}")
    if answer.returncode != 0 or "Dir" not in told:
        reason = (
            told.get("Error") or (answer.stderr.strip().splitlines() or ["Go said nothing"])[-1]
        )
        raise ControlPlaneError(
            f"{MODULE} could not be downloaded ({reason}): check the network, or set GOPROXY"
        )
    folder = Path(told["Dir"]) / "example" / "prometheus-operator-crd"
    return [folder / f"{GROUP}_{plural}.yaml" for plural in PLURALS]
