"""The CA and what it signs, as keys and certificates. Pure but for randomness; the only user of `cryptography`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ciliate_hubble.certificates.names import Leaf

CA_NAME = "Cilium CA"
SKEW = datetime.timedelta(minutes=5)
"""A new certificate is valid from that long ago (at most a tenth of its life): clocks of nodes differ."""
LEFT_TO_RENEW = 3
"""A certificate is renewed when one part in that many of its life is left."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""Keys of CAs: ours are of the first kind, those of Cilium's chart of the second."""


class CertificateError(Exception):
    """A certificate or key that can't be used; the message says why."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate alone."""
        return to_pem([self.certificate])

    @property
    def key_pem(self) -> bytes:
        """The key, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_certificates(pem: bytes) -> list[x509.Certificate]:
    """All certificates of a PEM text. Raises CertificateError."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateError(f"holds no certificate in PEM: {error}") from None


def read_key(pem: bytes) -> PrivateKey:
    """A private key. Raises CertificateError, which never quotes it."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise CertificateError("holds no private key in PEM without a password") from None
    if not isinstance(key, PrivateKey):
        raise CertificateError(f"holds a {type(key).__name__}; a CA's key must be RSA or on an elliptic curve")
    return key


def to_pem(certificates: list[x509.Certificate]) -> bytes:
    """Certificates as one PEM text, in order."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def matches(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """Whether a key is a certificate's."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


def renew_at(certificate: x509.Certificate) -> datetime.datetime:
    """When a certificate is to be renewed."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - (end - begin) / LEFT_TO_RENEW


def make_authority(now: datetime.datetime, life: datetime.timedelta) -> Pair:
    """A new CA, which signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    usage = _key_usage(signs_certificates=True)
    name = _name(CA_NAME)
    builder = _builder(name, name, key, now, life).add_extension(usage, critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Pair, leaf: Leaf, now: datetime.datetime, life: datetime.timedelta) -> Pair:
    """A new key and its certificate, which does not outlive the CA's."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    life = min(life, issuer.not_valid_after_utc - now)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] * leaf.server + [ExtendedKeyUsageOID.CLIENT_AUTH] * leaf.client
    builder = _builder(_name(leaf.name), issuer.subject, key, now, life)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(leaf.name)]), critical=False)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(issuer_key, critical=False)
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def flaw(certificate_pem: bytes, key_pem: bytes, authority: Pair, leaf: Leaf, now: datetime.datetime) -> str:
    """Why a leaf's certificate must be made anew; empty if it is fine."""
    try:
        certificate, key = read_certificates(certificate_pem)[0], read_key(key_pem)
    except CertificateError as error:
        return str(error)
    if not matches(certificate, key):
        return "the key is not the certificate's"
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return "another CA signed it"
    if names := set(_dns_names(certificate)) ^ {leaf.name}:
        return f"its names are others: {', '.join(sorted(names))}"
    if now >= renew_at(certificate):
        return f"it ends at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    return ""


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def _name(common: str) -> x509.Name:
    """A common name holds 64 characters at most; the whole name is in the SAN, which is what counts."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - min(SKEW, life / 10))
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
