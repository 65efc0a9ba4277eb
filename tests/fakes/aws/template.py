"""CloudFormation's template language: what stands in the files under fixtures/aws, evaluated."""

from __future__ import annotations

import functools
import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from fakes.aws.answers import Refused

NOTHING = object()
Resolve = Callable[[str, str | None], Any]


class _Loader(yaml.SafeLoader):
    """YAML with the short forms of functions."""


def _short(loader: Any, suffix: str, node: Any) -> Any:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short)


@functools.lru_cache(maxsize=16)
def parse(body: str) -> Mapping[str, Any]:
    """Return a template; the same text is read once."""
    try:
        found = yaml.load(body, _Loader)
    except yaml.YAMLError as error:
        raise Refused("ValidationError", f"Template format error: {error}") from error
    if not isinstance(found, dict) or "Resources" not in found:
        raise Refused("ValidationError", "Template format error: no Resources")
    return found


def parameters(template: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return every parameter's value, checked as CloudFormation checks it."""
    declared = template.get("Parameters", {})
    for name in given:
        if name not in declared:
            raise Refused("ValidationError", f"Parameters: [{name}] do not exist in the template")
    values: dict[str, Any] = {}
    for name, what in declared.items():
        text = given.get(name, what.get("Default"))
        if text is None:
            raise Refused("ValidationError", f"Parameters: [{name}] must have values")
        text = str(text)
        if "AllowedValues" in what and text not in [str(v) for v in what["AllowedValues"]]:
            raise Refused("ValidationError", f"Parameter '{name}' must be one of AllowedValues")
        if "AllowedPattern" in what and not re.fullmatch(what["AllowedPattern"], text):
            raise Refused("ValidationError", f"Parameter '{name}' must match its pattern")
        if what["Type"] == "Number" and not text.isdigit():
            raise Refused("ValidationError", f"Parameter '{name}' must be a number")
        is_list = what["Type"] == "CommaDelimitedList"
        values[name] = [part.strip() for part in text.split(",")] if is_list else text
    return values


def conditions(template: Mapping[str, Any], resolve: Resolve) -> dict[str, bool]:
    return {
        name: bool(evaluate(rule, resolve, {}))
        for name, rule in template.get("Conditions", {}).items()
    }


def evaluate(value: Any, resolve: Resolve, holds: Mapping[str, bool]) -> Any:
    """Return ``value`` with every function in it carried out."""

    def inner(each: Any) -> Any:
        return evaluate(each, resolve, holds)

    if isinstance(value, list):
        return [found for each in value if (found := inner(each)) is not NOTHING]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (name, argument), *_ = value.items()
        if name == "Ref":
            return NOTHING if argument == "AWS::NoValue" else resolve(argument, None)
        if name in _FUNCTIONS:
            return _FUNCTIONS[name](argument, inner, resolve, holds)
    return {k: found for k, v in value.items() if (found := inner(v)) is not NOTHING}


def _sub(argument: Any, inner: Any, resolve: Resolve, _holds: Any) -> str:
    text, given = (argument, {}) if isinstance(argument, str) else argument
    known = {name: inner(value) for name, value in given.items()}

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name in known:
            return str(known[name])
        logical, _, attribute = name.partition(".")
        return str(resolve(logical, attribute or None))

    return re.sub(r"\$\{([^!}]+)\}", replace, text)


def _cidr(argument: Any, inner: Any, _resolve: Resolve, _holds: Any) -> list[str]:
    block, count, bits = (inner(each) for each in argument)
    parts = ipaddress.ip_network(block).subnets(new_prefix=32 - int(bits))
    return [str(part) for part, _ in zip(parts, range(int(count)), strict=False)]


_FUNCTIONS: dict[str, Callable[[Any, Any, Resolve, Mapping[str, bool]], Any]] = {
    "Fn::GetAtt": lambda a, _i, resolve, _h: resolve(a[0], a[1]),
    "Fn::Sub": _sub,
    "Fn::Cidr": _cidr,
    "Fn::Select": lambda a, inner, _r, _h: inner(a[1])[int(a[0])],
    "Fn::Split": lambda a, inner, _r, _h: str(inner(a[1])).split(a[0]),
    "Fn::Join": lambda a, inner, _r, _h: a[0].join(map(str, inner(a[1]))),
    "Fn::Equals": lambda a, inner, _r, _h: inner(a[0]) == inner(a[1]),
    "Fn::Not": lambda a, inner, _r, _h: not inner(a[0]),
    "Fn::If": lambda a, inner, _r, holds: inner(a[1] if holds[a[0]] else a[2]),
}


def references(value: Any) -> Iterator[str]:
    """Yield every logical name that a value refers to."""
    if isinstance(value, list):
        for each in value:
            yield from references(each)
    elif isinstance(value, dict):
        for name, argument in value.items():
            if name == "Ref":
                yield argument
            elif name == "Fn::GetAtt":
                yield argument[0]
            elif name == "Fn::Sub":
                text, given = (argument, {}) if isinstance(argument, str) else argument
                yield from (m.partition(".")[0] for m in re.findall(r"\$\{([^!}]+)\}", text))
                yield from references(given)
            else:
                yield from references(argument)


def as_json(value: Any) -> Any:
    """Return a property of type Json, which may have been given as a text."""
    return json.loads(value) if isinstance(value, str) else value
