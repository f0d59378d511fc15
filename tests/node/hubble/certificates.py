"""Certificate authorities of a test's own."""

from __future__ import annotations

import base64
import datetime
from pathlib import Path

import yaml
from ciliate_hubble.certificates.names import CA_SECRET
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.node.labs import Lab

_DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates; a new one unless a key and a certificate are given."""

    def __init__(
        self, folder: Path, key: ec.EllipticCurvePrivateKey | None = None, issuer: x509.Name | None = None
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._key = key or ec.generate_private_key(ec.SECP256R1())
        self._issuer = issuer or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Stranger CA")])

    @classmethod
    def of_secret(cls, lab: Lab, folder: Path) -> Authority:
        """The cluster's own CA, from its Secret."""
        data = yaml.safe_load(lab.ciliate("get", "Secret", CA_SECRET, "-n", "kube-system", "-o", "yaml").stdout)["data"]
        key = serialization.load_pem_private_key(base64.b64decode(data["ca.key"]), None)
        certificate = x509.load_pem_x509_certificate(base64.b64decode(data["ca.crt"]))
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(folder, key, certificate.subject)

    def issue(self, name: str, until: datetime.datetime | None = None) -> tuple[Path, Path]:
        """A client's certificate and key, valid until a time."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(until or now + _DAY)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        paths = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = serialization.PrivateFormat.PKCS8
        paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
        return paths
