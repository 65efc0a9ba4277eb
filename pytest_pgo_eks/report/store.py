"""Earlier runs, from where they are kept: a folder, or a bucket that S3 speaks for.

What cannot be read is another run's trouble: it is named and left out, never taken for good.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.bundle.verifying import SUFFIX, document_of
from pytest_pgo_eks.report.document import FILE
from pytest_pgo_eks.report.reading import MAX_BYTES, checked
from pytest_pgo_eks.secrets import filtered, masked

# A year of nightly runs of a small matrix.
NEWEST = 2000
_SCHEME = "s3://"


@dataclass
class Kept:
    """The runs that were found, oldest first, and a line for whatever could not be read."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def kept_at(place: str, *, newest: int = NEWEST, client: Any = None) -> Kept:
    """Return the runs kept at ``place``: a folder (bundles too), or ``s3://bucket/prefix``.

    ``client`` is an S3 client of boto3; one is made of the environment's credentials without.

    :raises UsageProblem: the place cannot be read at all.
    """
    found = Kept()
    seen: set[tuple[str, str]] = set()
    source = _bucket(place, newest, client) if place.startswith(_SCHEME) else _folder(place)
    for where, read in source:
        try:
            # Here and not in the page, where a mask might swallow markup behind it.
            document = masked(read())
        except UsageProblem as problem:
            found.unread.append(filtered(str(problem)))
            continue
        document["run"] = document["run"] or Path(where).parent.name
        if (key := (document["run"], document["began"])) not in seen:
            seen.add(key)
            found.runs.append(document)
    found.runs.sort(key=_when)
    del found.runs[:-newest]
    return found


def _when(run: Mapping[str, Any]) -> tuple[float, str]:
    """Return where a run stands in time: runners live in several time zones."""
    try:
        began = datetime.fromisoformat(str(run["began"]))
        at = began.replace(tzinfo=began.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError, OSError):
        at = 0.0
    return at, str(run["run"])


def _folder(place: str) -> Iterator[tuple[str, Any]]:
    if not Path(place).is_dir():
        raise UsageProblem(f"{place}: there is no such folder of runs")
    # Links are not followed: "latest" would tell of one run twice.
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(
            one for one in folders if not one.startswith(".") and one != "scenarios"
        )
        for name in sorted(names):
            path = Path(folder, name)
            if (name == FILE or name.endswith(SUFFIX)) and not path.is_symlink():
                yield str(path), lambda path=path: document_of(path)


def _bucket(place: str, newest: int, client: Any) -> Iterator[tuple[str, Any]]:
    bucket, _, prefix = place.removeprefix(_SCHEME).partition("/")
    if not bucket:
        raise UsageProblem(f"{place}: name a bucket: s3://bucket/prefix")
    s3 = client or _client()
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    objects: list[Mapping[str, Any]] = []
    for page in _told(place, lambda: list(pages)):
        objects += [one for one in page.get("Contents", ()) if _is_verdict(one["Key"])]
    # Names need not sort by time where several series share a prefix.
    objects.sort(key=lambda one: (one["LastModified"], one["Key"]))
    for one in objects[-newest:]:
        where = f"{_SCHEME}{bucket}/{one['Key']}"
        yield where, lambda one=one, where=where: _object(s3, bucket, one, where)


def _is_verdict(key: str) -> bool:
    return key.rpartition("/")[2] == FILE


def _client() -> Any:
    try:
        import boto3
    except ImportError:
        raise UsageProblem("s3:// needs boto3: pip install 'pytest-pgo-eks[eks]'") from None
    return boto3.client("s3")


def _object(s3: Any, bucket: str, one: Mapping[str, Any], where: str) -> dict[str, Any]:
    if one["Size"] > MAX_BYTES:
        raise UsageProblem(f"{where}: larger than {MAX_BYTES >> 20} MiB, so it is no verdict")
    raw = _told(where, lambda: s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read(MAX_BYTES))
    try:
        return checked(json.loads(raw), where)
    except (ValueError, RecursionError):
        raise UsageProblem(f"{where}: not JSON, or cut off") from None


def _told(where: str, ask: Any) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return ask()
    except (BotoCoreError, ClientError) as error:
        raise UsageProblem(f"{where}: {' '.join(filtered(str(error)).split())}") from None
