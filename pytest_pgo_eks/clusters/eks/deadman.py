"""The dead man's switch: schedules inside AWS that delete the run's stacks if nobody comes back.

They are made before anything that costs, by EventBridge Scheduler, with a role that may delete what
carries the run's tags and nothing else. They fire once, at the run's expiry: the nodes first (they
are nearly all of the cost), then the addons, then the rest, twice, because what the nodes leave in the
network may hold the first one up. All of it is in a schedule group of the run's own, which is removed
when everything else is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pytest_pgo_eks.clusters.eks.calls import Aws, AwsRefused
from pytest_pgo_eks.clusters.eks.names import RUN_TAG, Names, tag_list, tag_map
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem

#: Schedule, stack, minutes after the expiry.
SCHEDULES = (
    ("nodes", "nodes", 0),
    ("addons", "addons", 20),
    ("base", "base", 45),
    ("base-again", "base", 90),
)
_TARGET = "arn:{partition}:scheduler:::aws-sdk:cloudformation:deleteStack"
# IAM takes some seconds to show a new role to other services.
_SEEN_S = 90.0
_POLL_S = 5.0
_POLICY = "delete-this-run"


def arm(
    aws: Aws, names: Names, tags: Mapping[str, str], *, account: str, runner: str, at: datetime
) -> None:
    """Make role and schedules, or find them made; ``at`` is when the first one fires.

    :raises UsageProblem: something of that name is there and carries no tag of this run.
    """
    partition = runner.split(":")[1]
    role = _role(aws, names, tags, partition=partition, account=account)
    try:
        aws.call("scheduler", "create_schedule_group", Name=names.reaper, Tags=tag_list(tags))
    except AwsRefused as refused:
        if refused.code != "ConflictException":
            raise
        _refuse_foreign(_group_tags(aws, names), names, f"schedule group {names.reaper}")
    for name, layer, minutes in SCHEDULES:
        _schedule(
            aws,
            {
                "GroupName": names.reaper,
                "Name": name,
                "ScheduleExpression": f"at({at + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%S})",
                "ScheduleExpressionTimezone": "UTC",
                "FlexibleTimeWindow": {"Mode": "OFF"},
                "ActionAfterCompletion": "DELETE",
                "Description": f"deletes {names.stack(layer)} if its run never comes back",
                "Target": {
                    "Arn": _TARGET.format(partition=partition),
                    "RoleArn": role,
                    "Input": json.dumps({"StackName": names.stack(layer)}),
                },
            },
        )


def _role(aws: Aws, names: Names, tags: Mapping[str, str], *, partition: str, account: str) -> str:
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "scheduler.amazonaws.com"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"aws:SourceAccount": account}},
            }
        ],
    }
    try:
        made = aws.call(
            "iam",
            "create_role",
            RoleName=names.reaper,
            AssumeRolePolicyDocument=json.dumps(trust),
            Description="deletes the stacks of a conformance run that never came back",
            Tags=tag_list(tags),
        )
    except AwsRefused as refused:
        if refused.code != "EntityAlreadyExists":
            raise
        made = aws.call("iam", "get_role", RoleName=names.reaper)
        _refuse_foreign(tag_map(made["Role"].get("Tags", ())), names, f"role {names.reaper}")
    aws.call(
        "iam",
        "put_role_policy",
        RoleName=names.reaper,
        PolicyName=_POLICY,
        PolicyDocument=json.dumps(policy(names, partition, account)),
    )
    return str(made["Role"]["Arn"])


def policy(names: Names, partition: str, account: str) -> dict[str, Any]:
    """Return what the schedules' role may do: delete the run's stacks and what is in them.

    Services that know tags are held to the run's tag, the others to the run's names.
    """
    tagged = {"StringEquals": {f"aws:ResourceTag/{RUN_TAG}": names.run}}
    own = f"{names.cluster}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["cloudformation:DeleteStack", "cloudformation:DescribeStacks"],
                "Resource": f"arn:{partition}:cloudformation:*:{account}:stack/{own}-*/*",
            },
            {
                "Effect": "Allow",
                "Action": ["ec2:Delete*", "ec2:Release*", "ec2:Detach*", "ec2:Disassociate*"],
                "Resource": "*",
                "Condition": tagged,
            },
            {"Effect": "Allow", "Action": ["ec2:Describe*"], "Resource": "*"},
            {
                "Effect": "Allow",
                "Action": ["eks:Delete*", "eks:Describe*", "eks:List*"],
                "Resource": f"arn:{partition}:eks:*:{account}:*/{own}*",
            },
            {
                "Effect": "Allow",
                "Action": ["iam:DeleteRole", "iam:DetachRolePolicy", "iam:GetRole", "iam:List*"],
                "Resource": f"arn:{partition}:iam::{account}:role/{own}-*",
            },
            {
                "Effect": "Allow",
                "Action": ["iam:DeleteOpenIDConnectProvider", "iam:GetOpenIDConnectProvider"],
                "Resource": f"arn:{partition}:iam::{account}:oidc-provider/*",
                "Condition": tagged,
            },
            {
                "Effect": "Allow",
                "Action": ["logs:DeleteLogGroup", "logs:DescribeLogGroups"],
                "Resource": f"arn:{partition}:logs:*:{account}:log-group:/aws/*/{own}/*",
            },
        ],
    }


def _schedule(aws: Aws, wanted: dict[str, Any]) -> None:
    clock = aws.clock
    ends = clock.now() + _SEEN_S
    operation = "create_schedule"
    while True:
        try:
            aws.call("scheduler", operation, **wanted)
        except AwsRefused as refused:
            if refused.code == "ConflictException" and operation == "create_schedule":
                operation = "update_schedule"
            elif refused.code != "ValidationException" or "role" not in refused.said:
                raise
            elif clock.now() >= ends:
                raise ClusterProblem(
                    f"the schedule {wanted['Name']} cannot use its role after {_SEEN_S:.0f} s: "
                    f"{refused.said}"
                ) from None
            else:
                clock.pause(_POLL_S)
        else:
            return


def _group_tags(aws: Aws, names: Names) -> dict[str, str]:
    found = aws.call("scheduler", "get_schedule_group", Name=names.reaper)
    told = aws.call("scheduler", "list_tags_for_resource", ResourceArn=found["Arn"])
    return tag_map(told.get("Tags", ()))


def _refuse_foreign(tags: Mapping[str, str], names: Names, what: str) -> None:
    if tags.get(RUN_TAG) != names.run:
        raise UsageProblem(
            f"there is a {what} that is not this run's; choose another name with --pgo-eks-run"
        )
