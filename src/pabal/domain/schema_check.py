"""Compare the registered events with an earlier schema: can all stored events still be read?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from pabal.domain.json_schema import NUMBER, TEXT, WHOLE
from pabal.domain.registry import EventRegistry, registry
from pabal.domain.schema_export import FORMAT, export_schema
from pabal.errors import UsageError

_REMARKS = ("title", "description", "default", "examples")
"""Keywords of a schema that do not restrict values."""
_PARTS = ("properties", "required", "prefixItems", "items", "additionalProperties", "propertyNames")
_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_BY_PATTERN = {WHOLE["pattern"]: "integer", NUMBER["pattern"]: "number"}
_UUID = {"type": "string", "format": "uuid"}
_Schema = dict[str, Any]


class SchemaFinding(msgspec.Struct, frozen=True):
    """A difference: a failure keeps stored events from being read, a note does not."""

    level: Literal["failure", "note"]
    event_type: str
    field: str | None
    problem: str
    advice: str


def check_schema(snapshot: Mapping[str, Any], events: EventRegistry = registry) -> list[SchemaFinding]:
    """Compare registered events with an earlier result of ``export_schema``.

    Failures are: a removed event type or field, a field whose type no longer takes all of its old
    values, a new field without default, a version that went back, and a raised version without the
    upcasters that lead to it. If the version is raised and they exist, everything else is a note. Raises
    UsageError for a document that is not a snapshot.
    """
    if not isinstance(snapshot, Mapping) or snapshot.get("format") != FORMAT:
        raise UsageError(
            f"this is not a schema snapshot of format {FORMAT}; write one with pabal schema export"
        )
    before: Mapping[str, Any] = snapshot["events"]
    now = export_schema(events)["events"]
    findings: list[SchemaFinding] = []
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            findings.append(
                _failure(
                    name,
                    None,
                    "the event type is gone, but logs may hold such events",
                    "keep its class (a projection may ignore it), or import the module that defines it",
                )
            )
        elif name not in before:
            findings.append(
                SchemaFinding("note", name, None, "the event type is new", "write the snapshot again")
            )
        else:
            findings += _compare(name, before[name], now[name], events)
    return findings


def _compare(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], events: EventRegistry
) -> Iterator[SchemaFinding]:
    was, is_now = old["version"], new["version"]
    if is_now < was:
        yield _failure(
            name,
            None,
            f"schema_version went back from {was} to {is_now}",
            f"set it to {was} or higher: events of version {was} are refused otherwise",
        )
        return
    missing = events.missing_upcaster(name, was, is_now)
    if missing is not None:
        yield _failure(
            name,
            None,
            f"schema_version is {is_now}, but no upcaster starts from version {missing}",
            f"write @upcaster({name!r}, from_version={missing}), which returns version {missing + 1}",
        )
        return
    for finding in _differences(name, old["schema"], new["schema"], is_now + 1):
        if is_now > was:
            yield msgspec.structs.replace(
                finding, level="note", advice=f"upcasters lead from version {was} to {is_now}"
            )
        else:
            yield finding


def _differences(name: str, old: _Schema, new: _Schema, next_version: int) -> Iterator[SchemaFinding]:
    upcaster = f"@upcaster({name!r}, from_version={next_version - 1})"
    upcast = f"raise schema_version to {next_version} and write {upcaster}"
    had, has = old.get("properties", {}), new.get("properties", {})
    for field in had:
        if field not in has:
            yield _failure(
                name,
                field,
                "the field was removed, and its stored values would be lost on reading",
                f"keep it with a default, or {upcast} that moves its value elsewhere",
            )
        elif not _accepts(_resolved(has[field], new), _resolved(had[field], old)):
            before, after = _summarize(had[field]), _summarize(has[field])
            same = f"its type {before} no longer accepts all stored values"
            yield _failure(
                name,
                field,
                same if before == after else f"its type changed from {before} to {after}",
                f"widen the type so that it still accepts the old values, or {upcast} that converts them",
            )
    for field in new.get("required", ()):
        if field not in old.get("required", ()):
            what = "lost its default" if field in had else "is new and has no default"
            yield _failure(
                name,
                field,
                f"the field {what}, and stored events may lack it",
                f"give it a default, or {upcast} that adds it",
            )


def _failure(name: str, field: str | None, problem: str, advice: str) -> SchemaFinding:
    return SchemaFinding("failure", name, field, problem, advice)


def _resolved(node: Any, root: _Schema, seen: tuple[str, ...] = ()) -> Any:
    """Return a schema with references replaced by their targets, and without remarks."""
    if isinstance(node, list):
        return [_resolved(each, root, seen) for each in node]
    if not isinstance(node, Mapping):
        return node
    reference = node.get("$ref")
    if reference is not None:
        if reference in seen:
            return {"$ref": reference}  # a recursive type: compared where it begins
        name = reference.rpartition("/")[2]
        return _resolved(root["$defs"][name], root, (*seen, reference))
    return {
        key: {name: _resolved(each, root, seen) for name, each in value.items()}
        if key == "properties"
        else _resolved(value, root, seen)
        for key, value in node.items()
        if key not in _REMARKS
    }


def _accepts(new: Any, old: Any) -> bool:
    """Return whether every value of the old schema fits the new one, as far as can easily be seen."""
    if new == old or new == {}:
        return True
    if not isinstance(new, Mapping) or not isinstance(old, Mapping):
        return False
    old = _with_looser_limits(old, new)
    if new == old:
        return True
    if "anyOf" in old or "anyOf" in new:
        choices = new.get("anyOf", [new])
        return all(any(_accepts(choice, each) for choice in choices) for each in old.get("anyOf", [old]))
    if "enum" in old and "enum" in new:
        same = {**new, "enum": None} == {**old, "enum": None}
        return same and all(value in new["enum"] for value in old["enum"])
    if old.keys() == {"enum"} and new in ({"type": "string"}, {"type": "integer"}):
        kind = str if new["type"] == "string" else int
        return all(type(value) is kind for value in old["enum"])
    if {**old, "type": "number"} == new and old.get("type") == "integer":
        return True
    if old == _UUID and new == TEXT:
        return True  # a UUID is written in only one way, so as text it equals what it equalled before
    has_parts = any(part in old for part in _PARTS) or "propertyNames" in new
    return has_parts and _accepts_parts(new, old)


def _with_looser_limits(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the old schema with the limits of the new one, where these allow all that the old ones did."""
    given = dict(old)
    for limit in (*_LEAST, *_MOST, "multipleOf", "pattern"):
        if limit not in given:
            continue
        if limit not in new:
            del given[limit]
        elif (limit in _LEAST and new[limit] <= given[limit]) or (
            limit in _MOST and new[limit] >= given[limit]
        ):
            given[limit] = new[limit]
    return given


def _accepts_parts(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Compare objects, arrays and mappings part by part; everything else in them must be equal."""
    if {key: new[key] for key in new if key not in _PARTS} != {k: old[k] for k in old if k not in _PARTS}:
        return False
    had, has = old.get("properties", {}), new.get("properties", {})
    if not all(name in has and _accepts(has[name], had[name]) for name in had):
        return False
    if not set(new.get("required", ())) <= set(old.get("required", ())):
        return False
    first, now_first = old.get("prefixItems", ()), new.get("prefixItems", ())
    if bool(first) != bool(now_first) or len(now_first) < len(first):
        return False  # new elements have defaults: the minimum length is compared above
    if not all(map(_accepts, now_first, first)):
        return False
    if not _accepts_names(new.get("propertyNames"), old.get("propertyNames")):
        return False
    inner = [part for part in ("items", "additionalProperties") if part in old or part in new]
    return all(part in old and part in new and _accepts(new[part], old[part]) for part in inner)


def _accepts_names(new: Any, old: Any) -> bool:
    """Compare the schemas of mapping keys; older snapshots do not contain them."""
    if new is None or old is None or new == TEXT or (new == NUMBER and old == WHOLE):
        return True
    if "enum" in old and "pattern" in new:
        return all(re.search(new["pattern"], name) for name in old["enum"])
    return _accepts(new, old)


def _summarize(node: Mapping[str, Any]) -> str:
    """Describe a type in a few words."""
    if "anyOf" in node:
        return " | ".join(_summarize(each) for each in node["anyOf"])
    if "$ref" in node:
        return str(node["$ref"]).rpartition("/")[2]
    if "enum" in node:
        return f"one of {node['enum']}"
    kind = str(node.get("type", "any"))
    names = node.get("propertyNames", TEXT)
    if names != TEXT:
        return f"{kind} (by {_BY_PATTERN.get(names.get('pattern')) or _summarize(names)})"
    return f"{kind} ({node['format']})" if "format" in node else kind
