"""Passwords as PostgreSQL wants them: SCRAM-SHA-256 (RFC 5802, RFC 7677) and md5.

The salted password is remembered per (password, salt, rounds): 4096 rounds of PBKDF2 cost 1.4 ms
of one core, and a scout that connects 100 times a second would burn a seventh of a core on it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import secrets
import unicodedata


class ScramProblem(Exception):
    """The server's side of the exchange is malformed, or it does not know the password either."""


@functools.lru_cache(maxsize=256)
def _keys(password: str, salt: bytes, rounds: int) -> tuple[bytes, bytes, bytes]:
    """Return client key, stored key and server key."""
    prepared = unicodedata.normalize("NFKC", password).encode()
    salted = hashlib.pbkdf2_hmac("sha256", prepared, salt, rounds)
    client = hmac.digest(salted, b"Client Key", "sha256")
    return client, hashlib.sha256(client).digest(), hmac.digest(salted, b"Server Key", "sha256")


class Scram:
    """One exchange: ``first()``, then ``proof(server_first)``, then ``verify(server_final)``."""

    def __init__(self, password: str) -> None:
        self._password = password
        self._bare = "n=,r=" + base64.b64encode(secrets.token_bytes(18)).decode()
        self._signature = b""

    def first(self) -> bytes:
        """Return the client-first message; ``n`` says that we do no channel binding."""
        return ("n,," + self._bare).encode()

    def proof(self, server_first: bytes) -> bytes:
        """Return the client-final message that answers ``server_first``.

        :raises ScramProblem: the server did not continue our nonce, or sent nonsense.
        """
        try:
            text = server_first.decode("ascii")
            fields = dict(part.split("=", 1) for part in text.split(","))
            nonce, salt, rounds = fields["r"], base64.b64decode(fields["s"]), int(fields["i"])
        except (ValueError, KeyError) as error:
            raise ScramProblem(f"malformed SCRAM message: {server_first[:80]!r}") from error
        if not nonce.startswith(self._bare[5:]) or nonce == self._bare[5:]:
            raise ScramProblem("the server did not continue our nonce")
        client, stored, server = _keys(self._password, salt, rounds)
        without_proof = f"c=biws,r={nonce}"
        message = f"{self._bare},{text},{without_proof}".encode()
        signed = hmac.digest(stored, message, "sha256")
        self._signature = hmac.digest(server, message, "sha256")
        proof = (int.from_bytes(client, "big") ^ int.from_bytes(signed, "big")).to_bytes(32, "big")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """Check the server's own proof.

        :raises ScramProblem: it does not know the password: somebody stands in the middle.
        """
        said = server_final.partition(b"v=")[2].split(b",")[0]
        if not self._signature or not hmac.compare_digest(said, base64.b64encode(self._signature)):
            raise ScramProblem("the server could not prove that it knows the password")


def md5(user: str, password: str, salt: bytes) -> bytes:
    """Return the answer to AuthenticationMD5Password."""
    inner = hashlib.md5((password + user).encode()).hexdigest()  # noqa: S324 -- the protocol's own choice
    return b"md5" + hashlib.md5(inner.encode() + salt).hexdigest().encode()  # noqa: S324
