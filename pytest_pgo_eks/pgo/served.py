"""What the release of an operator does not know of a manifest, told before it is applied.

An API server prunes fields that a release does not have, in silence: the cluster would come up
without what it was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.pgo.versions import Release

Manifest = dict[str, Any]


def refuse_unserved(
    manifest: Manifest, where: str, release: Release, served: Sequence[str] = ()
) -> None:
    """Refuse a manifest that this release cannot carry out.

    ``served`` are the versions of the resource that the API server offers, where that is known.

    :raises UsageProblem: one line that names the field and the release.
    """
    spec = manifest["spec"]
    version = str(manifest["apiVersion"]).rpartition("/")[2]
    offered = tuple(served) or release.api_versions
    if version not in offered:
        raise UsageProblem(
            f"{where}: apiVersion is {version}, but PGO {release.series} here serves "
            f"{' and '.join(offered)}"
        )
    postgres = int(spec["postgresVersion"])
    if postgres not in release.postgres_versions:
        first, last = release.postgres_versions[0], release.postgres_versions[-1]
        raise UsageProblem(
            f"{where}: spec.postgresVersion is {postgres}; PGO {release.series} runs {first} to {last}"
        )
    for known, field, there in (
        (
            release.config_parameters,
            "config.parameters",
            (spec.get("config") or {}).get("parameters"),
        ),
        (release.authentication_rules, "authentication", spec.get("authentication")),
    ):
        if there and not known:
            raise UsageProblem(
                f"{where}: spec.{field} is unknown to PGO {release.series}, which would ignore it; "
                "use spec.patroni.dynamicConfiguration"
            )
