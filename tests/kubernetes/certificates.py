"""A cluster's certificate authority, what it signs, and kubeconfig files with client certificates in them."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """Signs for servers and clients; all of its files are in one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ciliate-tests")])
        self._signed = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "ca.crt"
        self.file.write_bytes(_pem(self._signed))
        self.service_accounts = self._service_account_keys()

    def server(self, name: str, hosts: Iterable[str]) -> Pair:
        """A server's pair for addresses and names."""
        return self._sign(name, (), ExtendedKeyUsageOID.SERVER_AUTH, [_general_name(host) for host in hosts])

    def client(self, name: str, groups: Iterable[str] = (), life: datetime.timedelta = _LIFE) -> Pair:
        """A client's pair: the user's name, and its groups."""
        return self._sign(name, tuple(groups), ExtendedKeyUsageOID.CLIENT_AUTH, [], life)

    def kubeconfig(self, server: str, name: str, groups: Iterable[str] = ()) -> Path:
        """A kubeconfig for a user that the API server at `server` will know by a certificate."""
        pair = self.client(name, groups)
        path = self._folder / f"{_file_name(name)}.kubeconfig"
        cluster = {"server": server, "certificate-authority-data": _encoded(self.file)}
        user = {"client-certificate-data": _encoded(pair.certificate), "client-key-data": _encoded(pair.key)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": name}}],
            "current-context": "tests",
        }
        path.write_text(json.dumps(config, indent=1))
        return path

    def _sign(
        self,
        name: str,
        groups: tuple[str, ...],
        usage: x509.ObjectIdentifier,
        names: list[x509.GeneralName],
        life: datetime.timedelta = _LIFE,
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, self._name, key, life).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        pair = Pair(self._folder / f"{_file_name(name)}.crt", self._folder / f"{_file_name(name)}.key")
        pair.certificate.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))
        pair.key.write_bytes(_private(key))
        return pair

    def _service_account_keys(self) -> Pair:
        """The public and the private half of what service accounts' tokens are signed with."""
        key = ec.generate_private_key(ec.SECP256R1())
        pair = Pair(self._folder / "sa.pub", self._folder / "sa.key")
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        pair.certificate.write_bytes(public)
        pair.key.write_bytes(_private(key))
        return pair


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: datetime.timedelta = _LIFE
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + life)
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _file_name(name: str) -> str:
    return name.replace(":", "-").replace("/", "-")
