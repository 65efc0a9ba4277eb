"""Runs past their time: found by their tags in a whole region, and removed as any run is removed.

Nothing without the tags is looked at. A run's expiry is the latest that any of its things names; a
run of which no thing names one is never taken for expired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from pytest_pgo_eks.clusters.eks.belongings import Thing, find
from pytest_pgo_eks.clusters.eks.calls import Aws
from pytest_pgo_eks.clusters.eks.names import (
    EXPIRES_TAG,
    OWNER_TAG,
    PREFIX,
    RUN_TAG,
    Names,
    moment,
    tag_map,
)
from pytest_pgo_eks.clusters.eks.removal import Removal
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.progress import Progress


@dataclass(frozen=True)
class Found:
    """A run of which something is there."""

    run: str
    expires: datetime | None
    owner: str

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and self.expires < now


def runs(aws: Aws) -> list[Found]:
    """Return every run of which something in this region carries the tags, the oldest first."""
    seen: dict[str, Found] = {}
    for tags in _tagged(aws):
        run = tags.get(RUN_TAG, "")
        try:
            Names(run)
        except UsageProblem:
            continue  # no name that this program would give
        expires = moment(tags.get(EXPIRES_TAG, ""))
        before = seen.get(run)
        if before is not None and before.expires is not None:
            expires = max(before.expires, expires or before.expires)
        owner = tags.get(OWNER_TAG) or (before.owner if before else "")
        seen[run] = Found(run, expires, owner)
    return sorted(
        seen.values(), key=lambda found: (found.expires is None, found.expires, found.run)
    )


def _tagged(aws: Aws) -> Iterator[Mapping[str, str]]:
    """Yield the tags of each thing that carries the run's tag, wherever runs begin or end."""
    for stack in aws.every("cloudformation", "describe_stacks", "Stacks"):
        yield tag_map(stack.get("Tags", ()))
    for group in aws.every(
        "scheduler", "list_schedule_groups", "ScheduleGroups", NamePrefix=PREFIX
    ):
        told = aws.find("scheduler", "list_tags_for_resource", ResourceArn=group["Arn"])
        yield tag_map((told or {}).get("Tags", ()))
    for role in aws.every("iam", "list_roles", "Roles"):
        if role["RoleName"].startswith(PREFIX):
            told = aws.find("iam", "list_role_tags", RoleName=role["RoleName"])
            yield tag_map((told or {}).get("Tags", ()))
    by_thing: dict[str, dict[str, str]] = {}
    keys = [RUN_TAG, EXPIRES_TAG, OWNER_TAG]
    filters = [{"Name": "key", "Values": keys}]
    for tag in aws.every("ec2", "describe_tags", "Tags", Filters=filters):
        by_thing.setdefault(tag["ResourceId"], {})[tag["Key"]] = tag["Value"]
    yield from by_thing.values()


def sweep(
    aws: Aws, progress: Progress, *, run: str | None = None, every: bool = False, really: bool
) -> list[tuple[Found, list[Thing]]]:
    """Remove runs that have expired; return each with what is there of it, or left of it.

    ``run`` takes one run, expired or not, and returns nothing where nothing of it is there;
    ``every`` takes all. Without ``really`` nothing is touched, and what would be removed is returned.

    :raises UsageProblem: ``run`` is no name of a run.
    """
    now = aws.clock.wall()
    known = runs(aws)
    if run is not None:
        names = Names(run)
        chosen = [found for found in known if found.run == names.run]
        if not chosen and find(aws, names):
            chosen = [Found(run, None, "")]
    else:
        chosen = [found for found in known if every or found.expired(now)]
    outcome = []
    for found in chosen:
        names = Names(found.run)
        there = find(aws, names)
        if not there:
            continue  # EC2 shows the tags of what is gone for an hour
        left = Removal(aws, names, progress).remove() if really else there
        outcome.append((found, left))
    return outcome
