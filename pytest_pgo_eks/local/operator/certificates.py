"""The namespace's own CA and the certificates under it: ECDSA P-256, signed with SHA-384."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT_NAME = "postgres-operator-ca"
_HOUR = dt.timedelta(hours=1)
_LEAF_LIFE = dt.timedelta(days=365)
_ROOT_LIFE = dt.timedelta(days=3650)


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, both PEM. The key never shows in ``repr``."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "KeyPair(…)"


def make_root(now: dt.datetime) -> KeyPair:
    """Make a self-signed CA that lives for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ROOT_NAME)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _HOUR)
        .not_valid_after(now + _ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA384())
    )
    return _pair(certificate, key)


def make_leaf(root: KeyPair, names: Sequence[str], now: dt.datetime) -> KeyPair:
    """Issue a certificate for server and client use; the first name is its common name too.

    A common name holds at most 64 characters: a longer first name stays a SAN only, which is
    then marked critical (RFC 5280 4.1.2.6; Python 3.13 verifies that).
    """
    issuer = x509.load_pem_x509_certificate(root.certificate.encode())
    signer = _load_key(root.key)
    key = ec.generate_private_key(ec.SECP256R1())
    common = [x509.NameAttribute(NameOID.COMMON_NAME, names[0])] if len(names[0]) <= 64 else []
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(common))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _HOUR)
        .not_valid_after(now - _HOUR + _LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(authority, critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]),
            critical=not common,
        )
        .sign(signer, hashes.SHA384())
    )
    return _pair(certificate, key)


def root_is_usable(root: KeyPair, now: dt.datetime) -> bool:
    """Say whether this is a CA that is valid now and whose key is its own."""
    loaded = _load(root)
    if loaded is None:
        return False
    certificate, key = loaded
    return _same_key(certificate, key) and _within(certificate, now)


def leaf_is_usable(leaf: KeyPair, root: KeyPair, names: Sequence[str], now: dt.datetime) -> bool:
    """Say whether a leaf may stay: right names, right signer, own key, two thirds not yet over."""
    loaded, issuer = _load(leaf), _load(root)
    if loaded is None or issuer is None:
        return False
    certificate, key = loaded
    try:
        certificate.verify_directly_issued_by(issuer[0])
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        found.get_values_for_type(x509.DNSName) == list(names)
        and _same_key(certificate, key)
        and _within(certificate, now)
        and now < _renewal(certificate)
    )


def _renewal(certificate: x509.Certificate) -> dt.datetime:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_before_utc + life * 2 / 3


def _within(certificate: x509.Certificate, now: dt.datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _same_key(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bool:
    return certificate.public_key() == key.public_key()


def _load(pair: KeyPair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    try:
        return x509.load_pem_x509_certificate(pair.certificate.encode()), _load_key(pair.key)
    except (ValueError, TypeError):
        return None


def _load_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic curve key")
    return key


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(
        pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return KeyPair(certificate.public_bytes(pem).decode(), secret.decode())


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
