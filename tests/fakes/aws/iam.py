"""IAM: roles with their policies, OIDC providers, instance profiles, and the policy simulator."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from fakes.aws.answers import Answer, Params, Refused, Thing, tag_list, tag_map
from fakes.aws.world import ACCOUNT, World

PAGE = 100


def _missing(what: str, name: str) -> Refused:
    return Refused("NoSuchEntity", f"The {what} with name {name} cannot be found.", 404)


def role_of(world: World, name: str) -> Thing:
    found = world.kind("role").get(name)
    if found is None:
        raise _missing("role", name)
    return found


def make_role(
    world: World,
    name: str,
    trust: Any,
    tags: dict[str, str],
    *,
    path: str = "/",
    policies: tuple[str, ...] = (),
) -> Thing:
    if name in world.kind("role"):
        raise Refused("EntityAlreadyExists", f"Role with name {name} already exists.", 409)
    if len(name) > 64:
        raise Refused("ValidationError", f"roleName '{name}' is longer than 64")
    document = json.loads(trust) if isinstance(trust, str) else trust
    if not document.get("Statement"):
        raise Refused("MalformedPolicyDocument", "Syntax errors in policy.")
    for policy in policies:
        known = policy.partition(":policy/")[2]
        if known not in world.managed:
            raise Refused("NoSuchEntity", f"Policy {policy} does not exist or is not attachable.")
    return world.put("role", name, {
        "RoleName": name,
        "RoleId": world.new_id("AROA"),
        "Arn": f"arn:aws:iam::{ACCOUNT}:role{path}{name}",
        "Path": path,
        "CreateDate": world.clock.moment(),
        "AssumeRolePolicyDocument": json.dumps(document),
        "_tags": dict(tags),
        "_attached": list(policies),
        "_inline": {},
    })  # fmt: skip


def drop_role(world: World, name: str) -> None:
    role = role_of(world, name)
    if role["_attached"] or role["_inline"]:
        raise Refused(
            "DeleteConflict", "Cannot delete entity, must detach all policies first.", 409
        )
    if any(name in profile["_roles"] for profile in world.kind("instance-profile").values()):
        raise Refused("DeleteConflict", "must remove roles from instance profile first.", 409)
    world.drop("role", name)


def make_provider(world: World, tags: dict[str, str], url: str, audience: list[str]) -> Thing:
    name = url.removeprefix("https://")
    arn = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{name}"
    if arn in world.kind("oidc-provider"):
        raise Refused("EntityAlreadyExists", "Unknown", 409)
    thing = {"Arn": arn, "_url": name, "_audience": list(audience), "_tags": dict(tags)}
    return world.put("oidc-provider", arn, thing)


def _shown(role: Thing) -> Thing:
    found = {key: value for key, value in role.items() if not key.startswith("_")}
    # Quoted, as it comes over the wire: botocore reads it from that.
    return {**found, "AssumeRolePolicyDocument": quote(role["AssumeRolePolicyDocument"])}


def _get_role(world: World, params: Params) -> Answer:
    role = role_of(world, params["RoleName"])
    return {"Role": {**_shown(role), "Tags": tag_list(role["_tags"])}}


def _create_role(world: World, params: Params) -> Answer:
    role = make_role(world, params["RoleName"], params["AssumeRolePolicyDocument"],
                     tag_map(params.get("Tags", ())), path=params.get("Path", "/"))  # fmt: skip
    return {"Role": _shown(role)}


def _delete_role(world: World, params: Params) -> Answer:
    drop_role(world, params["RoleName"])
    return {}


def _put_policy(world: World, params: Params) -> Answer:
    json.loads(params["PolicyDocument"])
    role_of(world, params["RoleName"])["_inline"][params["PolicyName"]] = params["PolicyDocument"]
    world.touched()
    return {}


def _delete_policy(world: World, params: Params) -> Answer:
    inline = role_of(world, params["RoleName"])["_inline"]
    if params["PolicyName"] not in inline:
        raise _missing("role policy", params["PolicyName"])
    del inline[params["PolicyName"]]
    world.touched()
    return {}


def _detach(world: World, params: Params) -> Answer:
    attached = role_of(world, params["RoleName"])["_attached"]
    if params["PolicyArn"] not in attached:
        raise _missing("policy", params["PolicyArn"])
    attached.remove(params["PolicyArn"])
    world.touched()
    return {}


def _paged(items: list[Any], params: Params, key: str) -> Answer:
    begin = int(params.get("Marker") or 0)
    answer: Answer = {key: items[begin : begin + PAGE], "IsTruncated": begin + PAGE < len(items)}
    if answer["IsTruncated"]:
        answer["Marker"] = str(begin + PAGE)
    return answer


def _list_roles(world: World, params: Params) -> Answer:
    prefix = params.get("PathPrefix", "/")
    found = [_shown(r) for r in world.kind("role").values() if r["Path"].startswith(prefix)]
    # Names in the alphabet's order; no tags, whatever the model allows.
    return _paged(sorted(found, key=lambda r: str(r["RoleName"])), params, "Roles")


def _attached(world: World, params: Params) -> Answer:
    found = [
        {"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn}
        for arn in role_of(world, params["RoleName"])["_attached"]
    ]
    return _paged(found, params, "AttachedPolicies")


def _inline(world: World, params: Params) -> Answer:
    return _paged(list(role_of(world, params["RoleName"])["_inline"]), params, "PolicyNames")


def _role_tags(world: World, params: Params) -> Answer:
    return _paged(tag_list(role_of(world, params["RoleName"])["_tags"]), params, "Tags")


def _provider(world: World, arn: str) -> Thing:
    found = world.kind("oidc-provider").get(arn)
    if found is None:
        raise Refused("NoSuchEntity", f"OpenIDConnect Provider not found for arn {arn}", 404)
    return found


def _get_provider(world: World, params: Params) -> Answer:
    found = _provider(world, params["OpenIDConnectProviderArn"])
    return {
        "Url": found["_url"],
        "ClientIDList": found["_audience"],
        "ThumbprintList": [],
        "Tags": tag_list(found["_tags"]),
    }


def _delete_provider(world: World, params: Params) -> Answer:
    _provider(world, params["OpenIDConnectProviderArn"])
    world.drop("oidc-provider", params["OpenIDConnectProviderArn"])
    return {}


def _get_policy(world: World, params: Params) -> Answer:
    name = params["PolicyArn"].partition(":policy/")[2]
    if name not in world.managed:
        raise Refused("NoSuchEntity", f"Policy {params['PolicyArn']} was not found.", 404)
    policy = {
        "PolicyName": name.rpartition("/")[2],
        "Arn": params["PolicyArn"],
        "IsAttachable": True,
    }
    return {"Policy": policy}


def _simulate(world: World, params: Params) -> Answer:
    return {
        "EvaluationResults": [
            {
                "EvalActionName": action,
                "EvalDecision": "implicitDeny" if action in world.denied else "allowed",
            }
            for action in params["ActionNames"]
        ],
        "IsTruncated": False,
    }


def _profiles(world: World, params: Params) -> Answer:
    role_of(world, params["RoleName"])
    found = [
        {
            "InstanceProfileName": name,
            "InstanceProfileId": "AIPA0000000000000000",
            "Arn": f"arn:aws:iam::{ACCOUNT}:instance-profile/{name}",
            "Path": "/",
            "CreateDate": world.clock.moment(),
            "Roles": [],
        }
        for name, profile in world.kind("instance-profile").items()
        if params["RoleName"] in profile["_roles"]
    ]
    return _paged(found, params, "InstanceProfiles")


def _unprofile(world: World, params: Params) -> Answer:
    profile = world.kind("instance-profile").get(params["InstanceProfileName"])
    if profile is None:
        raise _missing("instance profile", params["InstanceProfileName"])
    profile["_roles"].remove(params["RoleName"])
    world.touched()
    return {}


def _delete_profile(world: World, params: Params) -> Answer:
    name = params["InstanceProfileName"]
    if world.kind("instance-profile").get(name, {"_roles": []})["_roles"]:
        raise Refused("DeleteConflict", "must remove roles from instance profile first.", 409)
    world.drop("instance-profile", name)
    return {}


HANDLERS: dict[str, Callable[[World, Params], Answer]] = {
    "GetRole": _get_role,
    "CreateRole": _create_role,
    "DeleteRole": _delete_role,
    "PutRolePolicy": _put_policy,
    "DeleteRolePolicy": _delete_policy,
    "DetachRolePolicy": _detach,
    "ListRoles": _list_roles,
    "ListRoleTags": _role_tags,
    "ListAttachedRolePolicies": _attached,
    "ListRolePolicies": _inline,
    "ListOpenIDConnectProviders": lambda w, _p: {
        "OpenIDConnectProviderList": [{"Arn": arn} for arn in w.kind("oidc-provider")]
    },
    "GetOpenIDConnectProvider": _get_provider,
    "DeleteOpenIDConnectProvider": _delete_provider,
    "GetPolicy": _get_policy,
    "SimulatePrincipalPolicy": _simulate,
    "ListInstanceProfilesForRole": _profiles,
    "RemoveRoleFromInstanceProfile": _unprofile,
    "DeleteInstanceProfile": _delete_profile,
}
