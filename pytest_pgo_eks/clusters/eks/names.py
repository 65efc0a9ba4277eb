"""What a run's things are called and tagged in AWS: the one place that knows.

A thing is a run's own when it carries the run's tag, or when AWS itself (EKS, its controllers, its
storage driver) tagged it with the name of the run's cluster. Nothing else is ever touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pytest_pgo_eks.errors import UsageProblem

PREFIX = "pgoeks-"
RUN_TAG = "pgo-eks/run"
OWNER_TAG = "pgo-eks/owner"
CREATED_TAG = "pgo-eks/created"
EXPIRES_TAG = "pgo-eks/expires-at"
PATTERN_TAG = "pgo-eks/pattern"
COMMIT_TAG = "pgo-eks/commit"
#: Says that somebody is at work removing it; on the cluster only.
STATE_TAG = "pgo-eks/state"
#: The edition of the pattern's rows that the templates follow.
PATTERN = "s1-s18"

LAYERS = ("base", "nodes", "addons")
_RUN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,22}[a-z0-9])?")

Tags = Mapping[str, str]


@dataclass(frozen=True)
class Names:
    """The names of one run. IAM's limit of 64 characters for a role is the shortest of all; with 24
    characters for the run there is room for what CloudFormation appends."""

    run: str

    def __post_init__(self) -> None:
        if not _RUN.fullmatch(self.run):
            raise UsageProblem(
                f"--pgo-eks-run: {self.run!r} is no name of a run: up to 24 lower-case letters, "
                "digits and hyphens, with a letter or digit at both ends (the names that AWS "
                "derives from it may not be longer than 64)"
            )

    @property
    def cluster(self) -> str:
        """The cluster's name in EKS, and the beginning of every other name."""
        return PREFIX + self.run

    def stack(self, layer: str) -> str:
        return f"{self.cluster}-{layer}"

    @property
    def reaper(self) -> str:
        """The schedule group, and the role that its schedules use."""
        return f"{self.cluster}-reaper"

    @property
    def cluster_tag(self) -> str:
        """The tag that Kubernetes' controllers put on what they make for the cluster."""
        return f"kubernetes.io/cluster/{self.cluster}"

    @property
    def log_groups(self) -> tuple[str, ...]:
        """Prefixes of the log groups that EKS and the agents of CloudWatch write to."""
        return (f"/aws/eks/{self.cluster}/", f"/aws/containerinsights/{self.cluster}/")

    def tags(
        self, *, owner: str, created: datetime, expires: datetime, commit: str | None
    ) -> dict[str, str]:
        """Return the tags of everything that the run makes."""
        found = {
            RUN_TAG: self.run,
            OWNER_TAG: owner,
            CREATED_TAG: stamp(created),
            EXPIRES_TAG: stamp(expires),
            PATTERN_TAG: PATTERN,
        }
        return found | ({COMMIT_TAG: commit} if commit else {})

    def owns(self, tags: Tags) -> bool:
        """Whether something that carries these tags is this run's."""
        if RUN_TAG in tags:
            return tags[RUN_TAG] == self.run
        return (
            tags.get(self.cluster_tag) == "owned"
            or tags.get("ebs.csi.aws.com/cluster-name") == self.cluster
            or tags.get("cluster.k8s.amazonaws.com/name") == self.cluster
            or tags.get("elbv2.k8s.aws/cluster") == self.cluster
            or tags.get("eks:cluster-name") == self.cluster
        )


def stamp(moment: datetime) -> str:
    """Return a moment as it stands in tags and state files: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime | None:
    """Return what :func:`stamp` wrote, or None for any other text."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def tag_map(found: object) -> dict[str, str]:
    """Return tags as a mapping, from whichever of AWS's three spellings."""
    if isinstance(found, Mapping):
        return {str(key): str(value) for key, value in found.items()}
    pairs: dict[str, str] = {}
    if isinstance(found, list | tuple):
        for each in found:
            key = each.get("Key", each.get("key"))
            pairs[str(key)] = str(each.get("Value", each.get("value", "")))
    return pairs


def tag_list(tags: Tags) -> list[dict[str, str]]:
    """Return tags in AWS's most common spelling."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
