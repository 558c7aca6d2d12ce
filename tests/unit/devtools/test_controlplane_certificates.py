"""The certificates of a control plane, checked by the TLS library that its clients use."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nexus_devtools.controlplane.certificates import (
    LIFETIME,
    Certificates,
    Pair,
    certificates_in,
    write_certificates,
)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("made") / "pki"
    return write_certificates(folder, now=datetime.datetime.now(datetime.UTC))


def read(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


def handshake(pki: Certificates, authority: Pair, host: str) -> None:
    """A complete mutual TLS handshake in memory, the client asking for ``host``."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(pki.server.certificate, pki.server.key)
    server_side.load_verify_locations(pki.authority.certificate)
    server_side.verify_mode = ssl.CERT_REQUIRED
    client_side = ssl.create_default_context(cafile=str(authority.certificate))
    client_side.load_cert_chain(pki.admin.certificate, pki.admin.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert waiting == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "kubernetes.default.svc"])
def test_client_and_server_accept_each_other_under_every_name(pki: Certificates, host: str) -> None:
    handshake(pki, pki.authority, host)


def test_a_name_that_is_not_the_servers_is_refused(pki: Certificates) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(pki, pki.authority, "example.test")


def test_the_authority_of_another_instance_is_refused(pki: Certificates, tmp_path: Path) -> None:
    other = write_certificates(tmp_path, now=datetime.datetime.now(datetime.UTC))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(pki, other.authority, "127.0.0.1")


def test_the_administrator_is_in_the_group_that_may_do_anything(pki: Certificates) -> None:
    subject = read(pki.admin).subject
    groups = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert [group.value for group in groups] == ["system:masters"]


def test_the_administrators_certificate_cannot_pose_as_a_server(pki: Certificates) -> None:
    usages = read(pki.admin).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_private_keys_are_readable_by_their_owner_alone(pki: Certificates) -> None:
    keys = [pki.authority.key, pki.server.key, pki.admin.key, pki.etcd.key]
    for key in [*keys, pki.service_account_key]:
        assert key.stat().st_mode & 0o077 == 0, key


def test_certificates_are_valid_for_a_clock_that_is_slow_and_for_a_month(tmp_path: Path) -> None:
    now = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    certificate = read(write_certificates(tmp_path, now=now).server)
    assert certificate.not_valid_before_utc < now - datetime.timedelta(minutes=30)
    assert certificate.not_valid_after_utc == now + LIFETIME


def test_the_layout_of_the_folder_can_be_told_without_writing_it(pki: Certificates) -> None:
    assert certificates_in(pki.service_account_key.parent) == pki
