"""When an X.509 certificate ends, without a cryptography library."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

_TIMES = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
_SEQUENCE, _VERSION = 0x30, 0xA0
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def ends(pem: str) -> datetime | None:
    """Return ``notAfter`` of the first certificate of a PEM text (RFC 5280, 4.1); None if unreadable.

    The standard library can only say it of a certificate that a handshake has accepted, and an
    expired one is accepted by nobody.
    """
    try:
        body = pem.split(_BEGIN, 1)[1].split(_END, 1)[0]
        certificate = _content(base64.b64decode(body), _SEQUENCE)
        fields = list(_elements(_content(certificate, _SEQUENCE)))
        if fields[0][0] == _VERSION:
            del fields[0]
        # serial, signature, issuer, validity
        validity = list(_elements(fields[3][1]))
        tag, text = validity[1]
        return datetime.strptime(text.decode("ascii"), _TIMES[tag]).replace(tzinfo=UTC)
    except (IndexError, KeyError, ValueError, binascii.Error):
        return None


def _content(data: bytes, tag: int) -> bytes:
    found, content = next(iter(_elements(data)), (0, b""))
    if found != tag:
        raise ValueError(f"tag {found:#x} where {tag:#x} belongs")
    return content


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Return the (tag, content) pairs of DER data."""
    found, at = [], 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(data[at : at + count], "big"), at + count
        found.append((tag, data[at : at + size]))
        at += size
    return found
