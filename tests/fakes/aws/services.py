"""The smaller services: who asks, logs, schedules, quotas, load balancers, tags, prices."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fakes.aws.answers import Answer, Params, Refused, Thing, page, tag_list, tag_map
from fakes.aws.world import ACCOUNT, REGION, World

Handler = Callable[[World, Params], Answer]


def _identity(world: World, _params: Params) -> Answer:
    return {"UserId": "AROAEXAMPLE:night", "Account": ACCOUNT, "Arn": world.arn}


# -- logs -----------------------------------------------------------------------------------------


def make_log_group(world: World, tags: dict[str, str], name: str, days: int | None) -> Thing:
    if name in world.kind("log-group"):
        raise Refused("ResourceAlreadyExistsException", "The specified log group already exists")
    group = {"logGroupName": name, "_tags": dict(tags), "_streams": []}
    return world.put("log-group", name, group | ({"retentionInDays": days} if days else {}))


def drop_log_group(world: World, name: str) -> None:
    if name not in world.kind("log-group"):
        raise Refused("ResourceNotFoundException", "The specified log group does not exist.")
    world.drop("log-group", name)


def _log_groups(world: World, params: Params) -> Answer:
    prefix = params.get("logGroupNamePrefix", "")
    found = [
        {key: value for key, value in group.items() if not key.startswith("_")}
        | {"arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{name}:*"}
        for name, group in world.kind("log-group").items()
        if name.startswith(prefix)
    ]
    return page(found, params, "logGroups", "nextToken", 50)


def _log_streams(world: World, params: Params) -> Answer:
    group = world.kind("log-group").get(params["logGroupName"])
    if group is None:
        raise Refused("ResourceNotFoundException", "The specified log group does not exist.")
    stamp = int(world.clock.moment().timestamp() * 1000)
    found = [{"logStreamName": name, "lastEventTimestamp": stamp} for name in group["_streams"]]
    return page(found, params, "logStreams", "nextToken", 50)


def _delete_logs(world: World, params: Params) -> Answer:
    drop_log_group(world, params["logGroupName"])
    return {}


def _log_tags(world: World, params: Params) -> Answer:
    name = params["resourceArn"].split(":log-group:")[1].removesuffix(":*")
    return {"tags": dict(world.kind("log-group")[name]["_tags"])}


# -- schedules ------------------------------------------------------------------------------------


def _group_arn(name: str) -> str:
    return f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule-group/{name}"


def _create_group(world: World, params: Params) -> Answer:
    name = params["Name"]
    if name in world.kind("schedule-group"):
        raise Refused("ConflictException", f"Schedule group {name} already exists.", 409)
    world.put("schedule-group", name, {"Name": name, "_tags": tag_map(params.get("Tags", ()))})
    return {"ScheduleGroupArn": _group_arn(name)}


def _group(world: World, name: str) -> Thing:
    found = world.kind("schedule-group").get(name)
    if found is None:
        raise Refused("ResourceNotFoundException", f"Schedule group {name} does not exist.", 404)
    return found


def _get_group(world: World, params: Params) -> Answer:
    name = params["Name"]
    _group(world, name)
    return {"Name": name, "Arn": _group_arn(name), "State": "ACTIVE"}


def _list_groups(world: World, params: Params) -> Answer:
    prefix = params.get("NamePrefix", "")
    found = [
        {"Name": name, "Arn": _group_arn(name), "State": "ACTIVE"}
        for name in world.kind("schedule-group")
        if name.startswith(prefix)
    ]
    return page(found, params, "ScheduleGroups", "NextToken", 50)


def _delete_group(world: World, params: Params) -> Answer:
    name = params["Name"]
    _group(world, name)
    for key in [k for k in world.kind("schedule") if k.startswith(f"{name}/")]:
        world.drop("schedule", key)
    world.drop("schedule-group", name)
    return {}


def _group_tags(world: World, params: Params) -> Answer:
    return {"Tags": tag_list(_group(world, params["ResourceArn"].rpartition("/")[2])["_tags"])}


def _put_schedule(*, new: bool) -> Handler:
    def put(world: World, params: Params) -> Answer:
        _group(world, params["GroupName"])
        key = f"{params['GroupName']}/{params['Name']}"
        if new and key in world.kind("schedule"):
            raise Refused("ConflictException", f"Schedule {params['Name']} already exists.", 409)
        if not new and key not in world.kind("schedule"):
            raise Refused("ResourceNotFoundException", f"Schedule {key} does not exist.", 404)
        role = params["Target"]["RoleArn"].rpartition("/")[2]
        if role not in world.kind("role"):
            raise Refused("ValidationException", "The execution role you provide must allow it")
        json.loads(params["Target"]["Input"])
        given = {k: v for k, v in params.items() if k != "ClientToken"}
        world.put("schedule", key, given)
        return {"ScheduleArn": f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/{key}"}

    return put


def _get_schedule(world: World, params: Params) -> Answer:
    key = f"{params.get('GroupName', 'default')}/{params['Name']}"
    found = world.kind("schedule").get(key)
    if found is None:
        raise Refused("ResourceNotFoundException", f"Schedule {key} does not exist.", 404)
    return dict(found)


def _list_schedules(world: World, params: Params) -> Answer:
    wanted = params.get("GroupName")
    found = [
        {"Name": each["Name"], "GroupName": each["GroupName"]}
        for each in world.kind("schedule").values()
        if wanted in {None, each["GroupName"]}
    ]
    return page(found, params, "Schedules", "NextToken", 50)


def _delete_schedule(world: World, params: Params) -> Answer:
    key = f"{params.get('GroupName', 'default')}/{params['Name']}"
    if key not in world.kind("schedule"):
        raise Refused("ResourceNotFoundException", f"Schedule {key} does not exist.", 404)
    world.drop("schedule", key)
    return {}


# -- quotas, load balancers, autoscaling, tags, prices ---------------------------------------------


def _quota(world: World, params: Params) -> Answer:
    key = (params["ServiceCode"], params["QuotaCode"])
    if key not in world.quotas:
        raise Refused("NoSuchResourceException", "The request failed: no such quota.")
    quota = {"ServiceCode": key[0], "QuotaCode": key[1], "Value": world.quotas[key]}
    return {"Quota": quota}


def _classic(world: World, params: Params) -> Answer:
    found = [
        {"LoadBalancerName": name, "VPCId": t["VpcId"]} for name, t in world.kind("elb").items()
    ]
    return {"LoadBalancerDescriptions": found}


def _some(tags: dict[str, str]) -> Answer:
    """A list of no tags is left out: the model wants one at least."""
    return {"Tags": tag_list(tags)} if tags else {}


def _classic_tags(world: World, params: Params) -> Answer:
    return {
        "TagDescriptions": [
            {"LoadBalancerName": name, **_some(world.kind("elb")[name]["_tags"])}
            for name in params["LoadBalancerNames"]
        ]
    }


def _balancer_enis(world: World, name: str) -> None:
    for each, eni in list(world.kind("network-interface").items()):
        if eni.get("_balancer") == name:
            world.drop("network-interface", each)


def _drop_classic(world: World, params: Params) -> Answer:
    name = params["LoadBalancerName"]
    if name in world.kind("elb"):
        _balancer_enis(world, name)
        world.drop("elb", name)
    return {}


def _balancers(world: World, params: Params) -> Answer:
    found = [
        {"LoadBalancerArn": arn, "LoadBalancerName": arn.split("/")[2], "VpcId": t["VpcId"]}
        for arn, t in world.kind("elbv2").items()
    ]
    return page(found, params, "LoadBalancers", "NextMarker", 50)


def _target_groups(world: World, params: Params) -> Answer:
    del params
    found = [
        {"TargetGroupArn": arn, "TargetGroupName": arn.split("/")[1], "VpcId": t["VpcId"]}
        for arn, t in world.kind("target-group").items()
    ]
    return {"TargetGroups": found}


def _v2_tags(world: World, params: Params) -> Answer:
    both = {**world.kind("elbv2"), **world.kind("target-group")}
    return {
        "TagDescriptions": [
            {"ResourceArn": arn, **_some(both[arn]["_tags"])} for arn in params["ResourceArns"]
        ]
    }


def _drop_v2(kind: str, member: str) -> Handler:
    def drop(world: World, params: Params) -> Answer:
        if params[member] in world.kind(kind):
            _balancer_enis(world, params[member])
            world.drop(kind, params[member])
        return {}

    return drop


def _scalers(world: World, params: Params) -> Answer:
    wanted = params.get("AutoScalingGroupNames")
    found = []
    for name, group in world.kind("autoscaling-group").items():
        if wanted and name not in wanted:
            continue
        found.append({
            "AutoScalingGroupName": name, "MinSize": 0, "MaxSize": 2, "DesiredCapacity": 1,
            "DefaultCooldown": 300, "AvailabilityZones": list(world.zones[:1]),
            "HealthCheckType": "EC2", "CreatedTime": world.clock.moment(),
            "Tags": [{"Key": k, "Value": v} for k, v in group["_tags"].items()],
        })  # fmt: skip
    return page(found, params, "AutoScalingGroups", "NextToken", 50)


def _drop_scaler(world: World, params: Params) -> Answer:
    name = params["AutoScalingGroupName"]
    if name not in world.kind("autoscaling-group"):
        raise Refused("ValidationError", "AutoScalingGroup name not found - null")
    world.drop("autoscaling-group", name)
    return {}


def _scaling_processes(world: World, params: Params) -> Answer:
    group = world.kind("autoscaling-group").get(params["AutoScalingGroupName"])
    if group is None:
        raise Refused("ValidationError", "AutoScalingGroup name not found - null")
    world.touched()
    return {}


def _tagged(world: World, params: Params) -> Answer:
    """As AWS: log groups, load balancers, EC2 things; no roles, no clusters."""
    found = []
    for kind in ("vpc", "subnet", "volume", "instance", "log-group", "elbv2", "bucket"):
        for name, thing in world.kind(kind).items():
            tags = thing["_tags"]
            if all(
                f["Key"] in tags and (not f.get("Values") or tags[f["Key"]] in f["Values"])
                for f in params.get("TagFilters", ())
            ):
                arn = name if name.startswith("arn:") else _arn(kind, name)
                found.append({"ResourceARN": arn, "Tags": tag_list(tags)})
    return page(found, params, "ResourceTagMappingList", "PaginationToken", 50)


def _arn(kind: str, name: str) -> str:
    if kind == "bucket":
        return f"arn:aws:s3:::{name}"
    if kind == "log-group":
        return f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{name}"
    return f"arn:aws:ec2:{REGION}:{ACCOUNT}:{kind}/{name}"


def _products(_world: World, _params: Params) -> Answer:
    raise Refused("AccessDeniedException", "not authorized to perform: pricing:GetProducts", 403)


HANDLERS: dict[str, dict[str, Handler]] = {
    "sts": {"GetCallerIdentity": _identity},
    "logs": {
        "DescribeLogGroups": _log_groups,
        "DescribeLogStreams": _log_streams,
        "DeleteLogGroup": _delete_logs,
        "ListTagsForResource": _log_tags,
    },
    "scheduler": {
        "CreateScheduleGroup": _create_group,
        "GetScheduleGroup": _get_group,
        "ListScheduleGroups": _list_groups,
        "DeleteScheduleGroup": _delete_group,
        "ListTagsForResource": _group_tags,
        "CreateSchedule": _put_schedule(new=True),
        "UpdateSchedule": _put_schedule(new=False),
        "GetSchedule": _get_schedule,
        "ListSchedules": _list_schedules,
        "DeleteSchedule": _delete_schedule,
    },
    "service-quotas": {"GetServiceQuota": _quota, "GetAWSDefaultServiceQuota": _quota},
    "elb": {
        "DescribeLoadBalancers": _classic,
        "DescribeTags": _classic_tags,
        "DeleteLoadBalancer": _drop_classic,
    },
    "elbv2": {
        "DescribeLoadBalancers": _balancers,
        "DescribeTargetGroups": _target_groups,
        "DescribeTags": _v2_tags,
        "DeleteLoadBalancer": _drop_v2("elbv2", "LoadBalancerArn"),
        "DeleteTargetGroup": _drop_v2("target-group", "TargetGroupArn"),
    },
    "autoscaling": {
        "DescribeAutoScalingGroups": _scalers,
        "DeleteAutoScalingGroup": _drop_scaler,
        "SuspendProcesses": _scaling_processes,
        "ResumeProcesses": _scaling_processes,
    },
    "resourcegroupstaggingapi": {"GetResources": _tagged},
    "pricing": {"GetProducts": _products},
}


def known(service: str) -> Any:
    return HANDLERS.get(service)
