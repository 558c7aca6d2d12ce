"""The certificates of one control plane: an own CA, and keys that never leave the state folder.

One CA signs the API server's certificate (valid for ``localhost`` and ``127.0.0.1``), the client
certificate of the administrator and those of etcd and its client, so that etcd answers nobody else
on the machine. They live for thirty days; an instance is not meant to live that long.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=30)
CLOCK_SKEW = datetime.timedelta(hours=1)
SERVICE_ADDRESS = "10.96.0.1"
SERVER_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
SERVER_ADDRESSES = ("127.0.0.1", "::1", SERVICE_ADDRESS)


@dataclass(frozen=True, slots=True)
class Pair:
    """The paths of a certificate and its private key, both PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """Everything :func:`write_certificates` has put into the folder."""

    authority: Pair
    server: Pair
    admin: Pair
    etcd: Pair
    service_account_key: Path


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def certificates_in(folder: Path) -> Certificates:
    """The paths as :func:`write_certificates` lays them out in ``folder``."""

    def pair(name: str) -> Pair:
        return Pair(folder / f"{name}.crt", folder / f"{name}.key")

    return Certificates(
        pair("ca"), pair("server"), pair("admin"), pair("etcd"), folder / "service-account.key"
    )


def write_certificates(folder: Path, *, now: datetime.datetime) -> Certificates:
    """Create the CA and everything it signs in ``folder``, readable by its owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = certificates_in(folder)
    authority = _create_authority(now)
    _write(paths.authority, authority.certificate, authority.key)
    _issue(paths.server, authority, subject=_name("kube-apiserver"), serves=True, now=now)
    _issue(paths.admin, authority, subject=_name("nexus-admin", "system:masters"), now=now)
    _issue(paths.etcd, authority, subject=_name("etcd"), serves=True, now=now)
    _write_private(paths.service_account_key, _pem_key(ec.generate_private_key(ec.SECP256R1())))
    return paths


def issue(
    authority: Pair,
    paths: Pair,
    *,
    common_name: str,
    organization: str | None = None,
    addresses: Sequence[str] = (),
    now: datetime.datetime,
) -> None:
    """One more certificate of the CA, valid for a client, and with addresses for a server there
    too: those, and the API server's names.
    """
    certificate = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    key = serialization.load_pem_private_key(authority.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    subject = _name(common_name, organization)
    _issue(paths, _Authority(certificate, key), subject=subject, addresses=addresses, now=now)


def _name(common_name: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _create_authority(now: datetime.datetime) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("nexus-controlplane")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return _Authority(certificate, key)


def _issue(
    paths: Pair,
    authority: _Authority,
    *,
    subject: x509.Name,
    now: datetime.datetime,
    serves: bool = False,
    addresses: Sequence[str] = (),
) -> None:
    serves = serves or bool(addresses)
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if serves:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(subject, authority.certificate.subject, key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(issuer_key, critical=False)
    )
    if serves:
        builder = builder.add_extension(_alternative_names(addresses), critical=False)
    _write(paths, builder.sign(authority.key, hashes.SHA256()), key)


def _alternative_names(more: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in SERVER_NAMES]
    names += [
        x509.IPAddress(ipaddress.ip_address(address)) for address in (*SERVER_ADDRESSES, *more)
    ]
    return x509.SubjectAlternativeName(names)


def _write(paths: Pair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    paths.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_private(paths.key, _pem_key(key))


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    # SEC 1 rather than PKCS 8: the service account flags of kube-apiserver take either.
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
