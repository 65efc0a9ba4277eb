"""Keys and certificates of a control plane, as kubeadm lays them out but in one directory."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID = dt.timedelta(days=2)


@dataclass(frozen=True)
class Authority:
    """A CA that signs for servers and clients. ``directory`` gets NAME.crt and NAME.key each."""

    directory: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def file(self) -> Path:
        return self.directory / "ca.crt"

    def issue(
        self, file: str, common: str, *, groups: Sequence[str] = (), names: Sequence[str] = ()
    ) -> tuple[Path, Path]:
        """Issue for a client (``common`` in ``groups``) or, with ``names``, for a server."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] if names else [ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(_name(common, groups), self.certificate.subject, key)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if names:
            sans = x509.SubjectAlternativeName([_general(one) for one in names])
            builder = builder.add_extension(sans, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return _write(self.directory / file, certificate, key)


def authority(directory: Path) -> Authority:
    """Make a CA, and the key with which tokens of service accounts are signed (``sa.key``)."""
    directory.mkdir(parents=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("kubernetes", ())
    certificate = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(directory / "ca", certificate, key)
    _private(directory / "sa.key", ec.generate_private_key(ec.SECP256R1()))
    return Authority(directory, key, certificate)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + _VALID)
    )


def _name(common: str, groups: Sequence[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(
    stem: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> tuple[Path, Path]:
    public, private = stem.with_suffix(".crt"), stem.with_suffix(".key")
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _private(private, key)
    return public, private


def _private(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
