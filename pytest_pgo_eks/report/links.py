"""Where things are: anchors on the page, a scenario's source in the repository that was built."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit


def anchor(node_id: str) -> str:
    """Return the id of a scenario on the page, the same in every run."""
    words = re.sub(r"[^a-z0-9]+", "-", node_id.partition("::")[2].lower()).strip("-")[:40]
    checksum = zlib.crc32(node_id.encode("utf-8", "replace"))
    return f"s-{words.strip('-')}-{checksum:08x}"


def source_url(document: Mapping[str, Any], scenario: Mapping[str, Any]) -> str | None:
    """Return where the scenario's text is on the web, where the CI built the very suite that ran."""
    job, commit = document["executor"], document["suite"]["commit"]
    path = scenario["id"].partition("::")[0]
    if not job or job["name"] != "GitHub Actions" or not job["url"] or not job["repository"]:
        return None
    if commit != job["commit"] or not path.startswith("features/"):
        return None
    page = urlsplit(job["url"])
    place = f"{job['repository']}/blob/{commit}/{path}"
    return f"{page.scheme}://{page.netloc}/{quote(place)}#L{scenario['line']}"


def safe_url(url: str | None) -> str | None:
    """Return ``url`` if a page may link to it: http or https, nothing that runs."""
    if not url:
        return None
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        return None
    return url if scheme in {"http", "https"} else None
