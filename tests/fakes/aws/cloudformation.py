"""CloudFormation: stacks that go on by themselves, at the pace of the world's clock.

Create and delete as the service does them: in the order of the references, everything at once that
can be, a failure cancels what is still running and (``DO_NOTHING``) leaves what is there; a deletion
goes on past what cannot be deleted and ends in DELETE_FAILED. Rolling back is not written: the
harness never asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fakes.aws import template as language
from fakes.aws.answers import Answer, Params, Refused, Thing, page, tag_list, tag_map
from fakes.aws.makers import MAKERS
from fakes.aws.world import ACCOUNT, REGION, World

LIMIT_BYTES = 51_200


def pass_time(world: World) -> None:
    """Let everything that goes on by itself come to where it is by now."""
    for stack in list(world.kind("stack").values()):
        while _step(world, stack):
            pass
    for name, late in list(world.kind("late-log").items()):
        if late["_at"] <= world.clock.now():
            group = f"/aws/eks/{name}/cluster"
            world.drop("late-log", name)
            if group not in world.kind("log-group"):
                world.put("log-group", group, {"logGroupName": group, "_tags": {}, "_streams": []})


def _step(world: World, stack: Thing) -> bool:
    """Bring about the next event of a stack, if its time has come; say whether there was one."""
    if stack["status"] == "CREATE_IN_PROGRESS":
        return _step_create(world, stack)
    if stack["status"] == "DELETE_IN_PROGRESS":
        return _step_delete(world, stack)
    return False


# -- creating -------------------------------------------------------------------------------------


def _step_create(world: World, stack: Thing) -> bool:
    now, parts = world.clock.now(), stack["resources"]
    finished = _next_due(parts, "CREATE_IN_PROGRESS", now)
    if finished is not None:
        _finish(world, stack, finished)
        return True
    if any(part["status"] == "CREATE_FAILED" for part in parts.values()):
        for name, part in parts.items():
            if part["status"] == "CREATE_IN_PROGRESS":
                _event(world, stack, name, "CREATE_FAILED", "Resource creation cancelled")
        _stack_event(world, stack, "CREATE_FAILED", "The following resource(s) failed to create")
        return True
    for name, part in parts.items():
        if part["status"] == "WAITING" and all(
            parts[need]["status"] == "CREATE_COMPLETE" for need in part["needs"]
        ):
            _begin(world, stack, name)
            return True
    if all(part["status"] == "CREATE_COMPLETE" for part in parts.values()):
        stack["outputs"] = _outputs(stack)
        _stack_event(world, stack, "CREATE_COMPLETE")
        return True
    return False


def _next_due(parts: dict[str, Thing], status: str, now: float) -> str | None:
    due = [(p["due"], n) for n, p in parts.items() if p["status"] == status and p["due"] <= now]
    return min(due)[1] if due else None


def _begin(world: World, stack: Thing, name: str) -> None:
    part = stack["resources"][name]
    maker = MAKERS[part["type"]]
    since = max((stack["resources"][n]["due"] for n in part["needs"]), default=stack["began"])
    part["due"] = since + maker.takes_s
    _event(world, stack, name, "CREATE_IN_PROGRESS")
    resolve = _resolver(stack)
    declared = language.parse(stack["body"])["Resources"][name]
    properties = language.evaluate(declared.get("Properties", {}), resolve, stack["conditions"])
    tags = {
        **stack["tags"],
        "aws:cloudformation:stack-name": stack["name"],
        "aws:cloudformation:logical-id": name,
    }
    physical = f"{stack['name']}-{name}-{world.count:06X}"
    try:
        made = maker.make(world, properties, tags, physical)
    except Refused as refused:
        _event(world, stack, name, "CREATE_FAILED", _reason(part["type"], refused))
        return
    part["physical"], part["attributes"] = made.physical, made.attributes


def _finish(world: World, stack: Thing, name: str) -> None:
    part = stack["resources"][name]
    if waiting := world.fail_create.get(name):
        _event(world, stack, name, "CREATE_FAILED", waiting.pop(0))
        return
    try:
        told = MAKERS[part["type"]].done(world, part["physical"])
    except Refused as refused:
        _event(world, stack, name, "CREATE_FAILED", _reason(part["type"], refused))
        return
    part["attributes"] = {**part["attributes"], **(told or {})}
    _event(world, stack, name, "CREATE_COMPLETE")


def _reason(kind: str, refused: Refused) -> str:
    service = kind.split("::")[1]
    return (
        f'Resource handler returned message: "{refused.message} (Service: {service}, Status Code: '
        f'{refused.status})" (RequestToken: 1, HandlerErrorCode: {refused.code})'
    )


def _resolver(stack: Thing) -> Callable[[str, str | None], Any]:
    known = {
        "AWS::Partition": "aws",
        "AWS::AccountId": ACCOUNT,
        "AWS::Region": REGION,
        "AWS::StackName": stack["name"],
        **stack["parameters"],
    }

    def resolve(name: str, attribute: str | None) -> Any:
        if attribute is None and name in known:
            return known[name]
        if name not in stack["resources"]:
            raise Refused("ValidationError", f"Unresolved resource dependencies [{name}]")
        part = stack["resources"][name]
        return part["physical"] if attribute is None else part["attributes"][attribute]

    return resolve


def _outputs(stack: Thing) -> dict[str, str]:
    declared = language.parse(stack["body"]).get("Outputs", {})
    resolve = _resolver(stack)
    return {
        name: str(language.evaluate(each["Value"], resolve, stack["conditions"]))
        for name, each in declared.items()
        if stack["conditions"].get(each.get("Condition", ""), True)
    }


# -- deleting -------------------------------------------------------------------------------------


def _step_delete(world: World, stack: Thing) -> bool:
    now, parts = world.clock.now(), stack["resources"]
    due = _next_due(parts, "DELETE_IN_PROGRESS", now)
    if due is not None:
        _unmake(world, stack, due)
        return True
    for name, part in parts.items():
        if part["status"] in {"DELETE_COMPLETE", "DELETE_IN_PROGRESS", "DELETE_FAILED"}:
            continue
        needed_by = [n for n, other in parts.items() if name in other["needs"]]
        if any(parts[n]["status"] != "DELETE_COMPLETE" for n in needed_by):
            continue
        if part["physical"] is None:
            _event(world, stack, name, "DELETE_COMPLETE")
            return True
        since = max((parts[n]["due"] for n in needed_by), default=stack["began"])
        part["due"] = max(since, stack["began"]) + MAKERS[part["type"]].drop_s
        _event(world, stack, name, "DELETE_IN_PROGRESS")
        return True
    running = any(part["status"] == "DELETE_IN_PROGRESS" for part in parts.values())
    failed = [n for n, part in parts.items() if part["status"] == "DELETE_FAILED"]
    if running:
        return False
    if failed and stack["force"]:
        failed = []
    if failed:
        text = f"The following resource(s) failed to delete: [{', '.join(failed)}]."
        _stack_event(world, stack, "DELETE_FAILED", text)
    else:
        _stack_event(world, stack, "DELETE_COMPLETE")
        world.drop("stack", stack["id"])
        world.put("gone-stack", stack["id"], stack)
    return True


def _unmake(world: World, stack: Thing, name: str) -> None:
    part = stack["resources"][name]
    if waiting := world.fail_delete.get(name):
        _event(world, stack, name, "DELETE_FAILED", waiting.pop(0))
        return
    try:
        MAKERS[part["type"]].drop(world, part["physical"])
    except Refused as refused:
        if "NotFound" not in refused.code and refused.code != "NoSuchEntity":
            _event(world, stack, name, "DELETE_FAILED", _reason(part["type"], refused))
            return
    except KeyError:
        world.touched()  # gone already
    _event(world, stack, name, "DELETE_COMPLETE")


# -- events ---------------------------------------------------------------------------------------


def _event(world: World, stack: Thing, name: str, status: str, reason: str = "") -> None:
    part = stack["resources"][name]
    part["status"] = status
    _write(
        world,
        stack,
        name,
        physical=part["physical"] or "",
        kind=part["type"],
        status=status,
        reason=reason,
    )


def _stack_event(world: World, stack: Thing, status: str, reason: str = "") -> None:
    stack["status"], stack["reason"] = status, reason
    _write(
        world,
        stack,
        stack["name"],
        physical=stack["id"],
        kind="AWS::CloudFormation::Stack",
        status=status,
        reason=reason,
    )


def _write(
    world: World, stack: Thing, name: str, *, physical: str, kind: str, status: str, reason: str
) -> None:
    world.touched()
    event = {
        "StackId": stack["id"],
        "StackName": stack["name"],
        "EventId": f"{len(stack['events']):05d}",
        "LogicalResourceId": name,
        "PhysicalResourceId": physical,
        "ResourceType": kind,
        "Timestamp": world.clock.moment(),
        "ResourceStatus": status,
    }
    stack["events"].append(event | ({"ResourceStatusReason": reason} if reason else {}))


# -- the API --------------------------------------------------------------------------------------


def _no_stack(name: str) -> Refused:
    return Refused("ValidationError", f"Stack with id {name} does not exist")


def _find(world: World, name: str, *, gone: bool = False) -> Thing:
    for stack in world.kind("stack").values():
        if name in {stack["id"], stack["name"]}:
            return stack
    if gone and name in world.kind("gone-stack"):
        return world.kind("gone-stack")[name]
    raise _no_stack(name)


def _make(world: World, params: Params, status: str) -> Thing:
    name = params["StackName"]
    if len(name) > 128:
        raise Refused("ValidationError", "stackName longer than 128")
    body = params["TemplateBody"]
    if len(body.encode()) > LIMIT_BYTES:
        raise Refused("ValidationError", "templateBody longer than 51200")
    found = language.parse(body)
    given = {p["ParameterKey"]: p["ParameterValue"] for p in params.get("Parameters", ())}
    values = language.parameters(found, given)
    stack: Thing = {
        "name": name,
        "id": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{name}/{world.new_id('s')}",
        "status": status,
        "reason": "",
        "body": body,
        "parameters": values,
        "tags": tag_map(params.get("Tags", ())),
        "began": world.clock.now(),
        "created": world.clock.moment(),
        "events": [],
        "outputs": {},
        "token": params.get("ClientRequestToken"),
        "protected": params.get("EnableTerminationProtection", False),
        "force": False,
        "resources": {},
        "conditions": {},
    }
    stack["conditions"] = language.conditions(found, _resolver(stack))
    wanted = {
        logical: what
        for logical, what in found["Resources"].items()
        if stack["conditions"].get(what.get("Condition", ""), True)
    }
    needs_iam = any(what["Type"].startswith("AWS::IAM::Role") for what in wanted.values())
    capable = {"CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"} & set(params.get("Capabilities", ()))
    if needs_iam and not capable:
        raise Refused(
            "InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_IAM]"
        )
    for logical, what in wanted.items():
        if what["Type"] not in MAKERS:
            raise Refused("ValidationError", f"Unrecognized resource types: [{what['Type']}]")
        before = what.get("DependsOn", [])
        before = [before] if isinstance(before, str) else before
        needs = {*language.references(what.get("Properties", {})), *before}
        stack["resources"][logical] = {
            "type": what["Type"], "status": "WAITING", "physical": None, "attributes": {},
            "needs": sorted(needs & wanted.keys()), "due": 0.0,
        }  # fmt: skip
    return stack


def _create(world: World, params: Params) -> Answer:
    name = params["StackName"]
    for stack in world.kind("stack").values():
        if stack["name"] == name:
            if params.get("ClientRequestToken") == stack["token"] is not None:
                return {"StackId": stack["id"]}
            raise Refused("AlreadyExistsException", f"Stack [{name}] already exists")
    if params.get("OnFailure") != "DO_NOTHING":
        raise Refused("ValidationError", "the fake does not roll back: OnFailure=DO_NOTHING")
    stack = world.put("stack", name, _make(world, params, "CREATE_IN_PROGRESS"))
    world.kind("stack")[stack["id"]] = world.kind("stack").pop(name)
    _stack_event(world, stack, "CREATE_IN_PROGRESS", "User Initiated")
    pass_time(world)
    return {"StackId": stack["id"]}


def _delete(world: World, params: Params) -> Answer:
    try:
        stack = _find(world, params["StackName"])
    except Refused:
        return {}  # deleting what does not exist succeeds
    if stack["protected"]:
        raise Refused(
            "ValidationError", "Stack cannot be deleted while TerminationProtection is on"
        )
    if stack["status"] == "DELETE_IN_PROGRESS":
        return {}
    if params.get("DeletionMode") == "FORCE_DELETE_STACK":
        if stack["status"] != "DELETE_FAILED":
            raise Refused("ValidationError", "FORCE_DELETE_STACK needs a stack in DELETE_FAILED")
        stack["force"] = True
    stack["began"] = world.clock.now()
    for part in stack["resources"].values():
        if part["status"] == "DELETE_FAILED":
            part["status"] = "CREATE_COMPLETE"
    _stack_event(world, stack, "DELETE_IN_PROGRESS", "User Initiated")
    pass_time(world)
    return {}


def _shown(stack: Thing) -> Answer:
    return {
        "StackName": stack["name"],
        "StackId": stack["id"],
        "StackStatus": stack["status"],
        "CreationTime": stack["created"],
        "Tags": tag_list(stack["tags"]),
        "Outputs": [{"OutputKey": k, "OutputValue": v} for k, v in stack["outputs"].items()],
        **({"StackStatusReason": stack["reason"]} if stack["reason"] else {}),
    }


def _describe(world: World, params: Params) -> Answer:
    if name := params.get("StackName"):
        return {"Stacks": [_shown(_find(world, name, gone=name.startswith("arn:")))]}
    found = [_shown(stack) for stack in world.kind("stack").values()]
    return page(found, params, "Stacks", "NextToken", 5)


def _events(world: World, params: Params) -> Answer:
    name = params["StackName"]
    found = _find(world, name, gone=name.startswith("arn:"))["events"]
    return page(list(reversed(found)), params, "StackEvents", "NextToken", 100)


def _changes(stack: Thing) -> Iterator[Answer]:
    for name, part in stack["resources"].items():
        change = {"Action": "Add", "LogicalResourceId": name, "ResourceType": part["type"]}
        yield {"Type": "Resource", "ResourceChange": change}


def _create_changes(world: World, params: Params) -> Answer:
    name = params["StackName"]
    if any(stack["name"] == name for stack in world.kind("stack").values()):
        raise Refused("AlreadyExistsException", f"Stack [{name}] already exists")
    if params.get("ChangeSetType") != "CREATE":
        raise _no_stack(name)
    stack = _make(world, params, "REVIEW_IN_PROGRESS")
    world.put("stack", stack["id"], stack)
    arn = f"{stack['id']}/changes"
    world.put("change-set", arn, {"name": params["ChangeSetName"], "stack": stack["id"]})
    return {"Id": arn, "StackId": stack["id"]}


def _describe_changes(world: World, params: Params) -> Answer:
    arn = params["ChangeSetName"]
    if arn not in world.kind("change-set"):
        raise Refused("ChangeSetNotFound", f"ChangeSet [{arn}] does not exist", 404)
    stack = world.kind("stack")[world.kind("change-set")[arn]["stack"]]
    return {
        "ChangeSetId": arn,
        "StackName": stack["name"],
        "Status": "CREATE_COMPLETE",
        **page(list(_changes(stack)), params, "Changes", "NextToken", 30),
    }


def _delete_changes(world: World, params: Params) -> Answer:
    if params["ChangeSetName"] in world.kind("change-set"):
        world.drop("change-set", params["ChangeSetName"])
    return {}


def _delete_any(world: World, params: Params) -> Answer:
    """A stack that is only a review goes at once, with its change sets."""
    try:
        stack = _find(world, params["StackName"])
    except Refused:
        return {}
    if stack["status"] != "REVIEW_IN_PROGRESS":
        return _delete(world, params)
    for arn in [a for a, c in world.kind("change-set").items() if c["stack"] == stack["id"]]:
        world.drop("change-set", arn)
    world.drop("stack", stack["id"])
    return {}


HANDLERS: dict[str, Callable[[World, Params], Answer]] = {
    "CreateStack": _create,
    "DeleteStack": _delete_any,
    "DescribeStacks": _describe,
    "DescribeStackEvents": _events,
    "CreateChangeSet": _create_changes,
    "DescribeChangeSet": _describe_changes,
    "DeleteChangeSet": _delete_changes,
}
