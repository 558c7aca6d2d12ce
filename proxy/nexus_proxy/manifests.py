"""The standalone mode's objects: the same YAML files as for a cluster, read from a folder.

Every document of every `*.yaml`, `*.yml` and `*.json` below the folder counts; kinds other than the
three and Secret are passed over. Objects are held to the rules of the schemas, and an error names
file, object and field in one line.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from nexus_api import InvalidObject, LLMBackend, QualityPolicy, RoutingPolicy, decode_object
from nexus_api.meta import GROUP, KINDS
from nexus_api.unknown import unknown_fields
from nexus_api.validate import violations
from nexus_proxy.control import Objects
from nexus_proxy.settings import UsageError

try:  # the same in C, ten times as fast, where PyYAML was built with it
    from yaml import CSafeLoader as _SafeLoader
except ImportError:
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

SUFFIXES = frozenset((".yaml", ".yml", ".json"))
DEFAULT_NAMESPACE = "default"

NexusObject = LLMBackend | QualityPolicy | RoutingPolicy
T = TypeVar("T", LLMBackend, QualityPolicy, RoutingPolicy)
Fingerprint = tuple[tuple[str, int, int], ...]


class InvalidManifests(UsageError):
    """A file that cannot be used; the message is one line."""


@dataclass(frozen=True, slots=True)
class Manifests:
    """What a folder holds. `secrets` maps Secret name and key to the decoded value."""

    objects: Objects
    secrets: Mapping[str, Mapping[str, str]]


class _Loader(_SafeLoader):
    """Leaves times as text, as Kubernetes does."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def files(folder: Path) -> list[Path]:
    """The manifest files below a folder, sorted."""
    return sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES and p.is_file())


def fingerprint(folder: Path) -> Fingerprint:
    """Changes when a file is added, removed or written."""
    found = []
    for path in files(folder):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def load(folder: Path, *, namespace: str | None = None) -> Manifests:
    """Read a folder; with `namespace`, only its objects. Raises InvalidManifests."""
    found: dict[tuple[str, str, str], NexusObject] = {}
    secrets: dict[str, dict[str, str]] = {}
    for path, document in _documents(folder):
        kind = document.get("kind")
        if kind == "Secret":
            secrets.update([_secret(path, document)])
        if kind not in KINDS:
            if str(document.get("apiVersion", "")).startswith(f"{GROUP}/"):
                raise InvalidManifests(f"{path}: unknown kind {kind}: {', '.join(KINDS)}")
            continue
        read = _read(path, document)
        meta = read.metadata
        key = (str(kind), meta.namespace, meta.name)
        if key in found:
            raise InvalidManifests(f"{path}: {kind} {meta.name} is defined twice")
        if namespace in (None, meta.namespace):
            found[key] = read
    return Manifests(
        Objects(
            backends=_of(found, LLMBackend),
            quality_policies=_of(found, QualityPolicy),
            routing_policies=_of(found, RoutingPolicy),
        ),
        secrets,
    )


def _of(found: Mapping[Any, NexusObject], kind: type[T]) -> tuple[T, ...]:
    return tuple(each for each in found.values() if isinstance(each, kind))


def _documents(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for path in files(folder):
        try:
            documents = list(yaml.load_all(path.read_text("utf-8"), Loader=_Loader))
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InvalidManifests(f"{path}: {' '.join(str(error).split())}") from None
        for document in documents:
            if isinstance(document, dict):
                yield from ((path, each) for each in _unlisted(document))


def _unlisted(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A document, or the items of a List."""
    if str(document.get("kind", "")).endswith("List") and isinstance(document.get("items"), list):
        yield from (item for item in document["items"] if isinstance(item, dict))
    else:
        yield document


def _read(path: Path, document: Mapping[str, Any]) -> NexusObject:
    try:
        read = decode_object(document)
    except InvalidObject as error:
        raise InvalidManifests(f"{path}: {error}") from None
    kind, name = document["kind"], read.metadata.name
    for field in unknown_fields(document.get("spec"), type(read.spec)):
        raise InvalidManifests(f"{path}: {kind} {name}: unknown field {field}")
    for field, problem in violations(read):
        raise InvalidManifests(f"{path}: {kind} {name}: {field}: {problem}")
    namespace = read.metadata.namespace or DEFAULT_NAMESPACE
    uid = uuid.uuid5(uuid.NAMESPACE_URL, f"{kind}/{namespace}/{name}")
    metadata = msgspec.structs.replace(read.metadata, namespace=namespace, uid=str(uid))
    return msgspec.structs.replace(read, metadata=metadata)


def _secret(path: Path, document: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    name = str((document.get("metadata") or {}).get("name", ""))
    values: dict[str, str] = {}
    for key, encoded in (document.get("data") or {}).items():
        try:
            values[str(key)] = base64.b64decode(str(encoded), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidManifests(
                f"{path}: Secret {name}: data.{key} is not base64 text"
            ) from None
    values |= {str(key): str(value) for key, value in (document.get("stringData") or {}).items()}
    return name, values
