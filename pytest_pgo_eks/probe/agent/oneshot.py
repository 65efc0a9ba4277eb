"""One connection, one statement, one JSON answer: who may log in here, and which server is it?"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from . import wire
from .connect import ATTRIBUTES, TLS_MODES, ConnectFailed, Target, open_session, run

_files: dict[str, str] = {}


def _ca_file(pem: str) -> str:
    """Return a file that holds ``pem``: OpenSSL takes trust anchors from files or text alike, but
    a path keeps contexts cacheable."""
    if pem not in _files:
        with tempfile.NamedTemporaryFile("w", suffix=".crt", delete=False) as file:
            file.write(pem)
        _files[pem] = file.name
    return _files[pem]


def target(spec: dict[str, Any]) -> Target:
    """Build a Target from JSON: either ``uri`` or ``hosts``, ``user``, ``database``.

    ``ca_pem`` is the text of the CA, ``options`` a mapping; the rest as in :class:`Target`.

    :raises ValueError: an unknown TLS mode or session attribute, or no host.
    """
    spec = dict(spec)
    if uri := spec.pop("uri", None):
        spec = parse_uri(uri) | spec
    if pem := spec.pop("ca_pem", None):
        spec["ca"] = _ca_file(pem)
    tls = spec.get("tls", "require")
    if tls not in TLS_MODES:
        raise ValueError(f"tls is one of {', '.join(TLS_MODES)}, not {tls!r}")
    if tls.startswith("verify") and not spec.get("ca"):
        raise ValueError(f"tls {tls} needs the CA's certificate")
    if spec.get("attributes", "any") not in ATTRIBUTES:
        raise ValueError(f"attributes is one of {', '.join(ATTRIBUTES)}")
    hosts = tuple((str(host), int(port)) for host, port in spec.pop("hosts"))
    if not hosts:
        raise ValueError("no host")
    options = tuple(sorted(dict(spec.pop("options", {})).items()))
    return Target(hosts=hosts, options=options, **spec)


def parse_uri(uri: str) -> dict[str, Any]:
    """Take a libpq URI apart, several hosts included; unknown parameters become options.

    :raises ValueError: not a postgresql:// URI.
    """
    parts = urlsplit(uri)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ValueError("not a postgresql:// URI")
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    out: dict[str, Any] = {"hosts": [], "user": unquote(user), "database": parts.path.lstrip("/")}
    out["database"] = unquote(out["database"]) or out["user"]
    if password:
        out["password"] = unquote(password)
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        if not name:
            name, port = port, ""
        out["hosts"].append([name.strip("[]"), int(port or 5432)])
    options: dict[str, str] = {}
    for key, value in parse_qsl(parts.query):
        if key == "sslmode":
            out["tls"] = value
        elif key == "target_session_attrs":
            out["attributes"] = value
        elif key == "connect_timeout":
            out["host_s"] = float(value)
        elif key == "sslrootcert":
            out["ca"] = value
        else:
            options[key] = value
    if options:
        out["options"] = options
    return out


async def ask_once(spec: dict[str, Any], sql: str, deadline_s: float) -> dict[str, Any]:
    """Connect, run ``sql``, and tell what happened.

    Returns ``stage`` (``done``, ``connect`` or ``statement``), ``code`` (SQLSTATE or a word),
    ``message``, ``rows`` and ``columns`` (text) of the last result, ``tag``, ``tls`` (whether the session
    was encrypted), ``notices`` and ``took_s``.
    """
    began = time.monotonic()
    said: list[wire.Fields] = []
    out = empty()
    session = None
    try:
        async with asyncio.timeout(deadline_s):
            session = await open_session(target(spec), None, said.append)
            await statement(session, sql, out)
    except TimeoutError:
        out["code"], out["message"] = "deadline", f"no answer within {deadline_s} s"
    except ConnectFailed as failed:
        out["code"], out["message"] = failed.code, str(failed)
    finally:
        if session is not None:
            session.close()
    out["notices"] = said + out["notices"]
    out["took_s"] = round(time.monotonic() - began, 4)
    return out


def empty() -> dict[str, Any]:
    """Return the answer of somebody who got nowhere."""
    nothing: list[Any] = []
    return {
        "stage": "connect",
        "code": "",
        "message": "",
        "rows": nothing,
        "columns": nothing,
        "notices": nothing,
    }


async def statement(session: wire.Session, sql: str, out: dict[str, Any]) -> None:
    """Run ``sql`` on an open session and write into ``out`` what happened."""
    out["stage"], out["tls"] = "statement", session.encrypted
    await run(session, wire.query(sql))
    out["notices"] = list(session.notices)
    if session.error is not None:
        out["code"], out["message"] = session.error.get("C", ""), session.error.get("M", "")
    elif session.lost is not None:
        out["code"], out["message"] = "lost", session.lost
    else:
        out["stage"], out["tag"] = "done", session.tag
        out["columns"] = wire.names(session.columns)
        out["rows"] = [
            [None if c is None else c.decode("utf-8", "replace") for c in wire.cells(row)]
            for row in session.rows
        ]


async def answers(wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask ``times`` times (1 by default), ``at_once`` connections side by side."""
    gate = asyncio.Semaphore(int(wanted.get("at_once", 8)))

    async def one(target_spec: dict[str, Any], sql: str) -> dict[str, Any]:
        async with gate:
            return await ask_once(target_spec, sql, float(wanted.get("deadline_s", 10.0)))

    try:
        asks = wanted.get("asks") or [{"target": wanted["target"], "sql": wanted["sql"]}] * int(
            wanted.get("times", 1)
        )
        return list(await asyncio.gather(*(one(a["target"], a["sql"]) for a in asks)))
    except (ValueError, KeyError, TypeError) as error:
        return [{"stage": "usage", "code": "usage", "message": f"{type(error).__name__}: {error}"}]


def main(wanted: dict[str, Any]) -> int:
    """Print the answers as JSON lines."""
    for answer in asyncio.run(answers(wanted)):
        print(json.dumps(answer))
    forget_files()
    return 0


def forget_files() -> None:
    """Remove the files that certificates were written to."""
    for name in _files.values():
        Path(name).unlink(missing_ok=True)
    _files.clear()
