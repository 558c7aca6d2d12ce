"""The configuration files of a node: containerd's, its network plugin's, the kubelet's.

Only what differs from the defaults is said; nothing is written here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from nexus_devtools.node.images import PAUSE_IMAGE
from nexus_devtools.node.layout import NodePlace
from nexus_devtools.node.pki import ClusterPki
from nexus_devtools.node.programs import CNI_FOLDER

CONTAINERD = """\
version = 3
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
oom_score = 0
[grpc]
  address = "{socket}"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.runtime']
  # Lowering a score needs a capability that a machine in a container lacks.
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{cni}"]
  conf_dir = "{folder}/cni"
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = "runc"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = "{runc}"
"""


def containerd(place: NodePlace, runc: Path) -> str:
    """containerd's, as TOML."""
    return CONTAINERD.format(
        folder=place.folder, socket=place.containerd, pause=PAUSE_IMAGE, cni=CNI_FOLDER, runc=runc
    )


def network(place: NodePlace) -> str:
    """A bridge for the node's pods; addresses are kept with the node's other state."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": place.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(place.folder / "addresses"),
        },
    }
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return json.dumps({"cniVersion": "1.0.0", "name": "nexus", "plugins": plugins}, indent=2)


def kubelet(place: NodePlace, made: ClusterPki) -> str:
    """The kubelet's, as YAML."""
    server = made.kubelet_server(place)
    configuration: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": place.cgroup,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "failSwapOn": False,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(made.certificates.authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{place.containerd}",
        "clusterDNS": [place.site.dns_address],
        "clusterDomain": "cluster.local",
        "tlsCertFile": str(server.certificate),
        "tlsPrivateKeyFile": str(server.key),
        "resolvConf": str(place.folder / "resolv.conf"),
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "memory.available": "100Mi",
        },
        # Pods come and go quickly here.
        "nodeStatusUpdateFrequency": "5s",
        # Secrets and tokens that changed are in their files soon.
        "syncFrequency": "10s",
        "volumePluginDir": str(place.folder / "volume-plugins"),
        "podLogsDir": str(place.folder / "pod-logs"),
    }
    return yaml.safe_dump(configuration, sort_keys=False)
