"""Describes the keys of a campaign file from its JSON schema as Markdown."""

from typing import Any

from markdown_parts import code, table

from hpc_lpm.campaign.config import campaign_schema

Schema = dict[str, Any]


def campaign_keys() -> str:
    """Return the table of all keys, then a section for each kind of value with keys of its own."""
    schema = campaign_schema()
    parts = [schema.get("description", ""), _keys(schema)]
    for name, section in sorted(schema.get("$defs", {}).items()):
        if "properties" in section:
            parts += [f"### {name}", section.get("description", ""), _keys(section)]
    return "\n\n".join(part for part in parts if part)


def _keys(schema: Schema) -> str:
    """Return the table of a section's keys, those first that have to be there."""
    required = schema.get("required", [])
    keys = sorted(schema["properties"].items(), key=lambda pair: pair[0] not in required)
    rows = [
        [
            code(key),
            _kind(value),
            "required" if key in required else _default(value),
            value.get("description", ""),
        ]
        for key, value in keys
    ]
    columns = ["key", "value", "default", "meaning"]
    if not any(row[-1] for row in rows):  # the text above the table says it
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return table(columns, rows)


def _default(value: Schema) -> str:
    if value.get("default") in (None, [], {}) or "$ref" in value:
        return ""
    default = value["default"]
    if isinstance(default, dict):
        return ""
    shown = ", ".join(map(str, default)) if isinstance(default, list) else default
    return code(str(shown).lower() if isinstance(shown, bool) else shown)


def _kind(value: Schema) -> str:
    """Return what the value of a key may be, in words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in value:
            kinds = [_kind(one) for one in value[choice] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if "enum" in value or "const" in value:
        return ", ".join(code(one) for one in value.get("enum", [value.get("const")]))
    kind = value.get("type", "anything")
    if kind == "array" and value.get("items"):
        return f"list of {_kind(value['items'])}"
    if kind == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"mapping to {_kind(value['additionalProperties'])}"
    return {"array": "list", "object": "mapping"}.get(kind, f"{kind}{_bounds(value)}")


def _bounds(value: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {value[name]:g}" for name, sign in signs.items() if name in value]
    return f" {' and '.join(bounds)}" if bounds else ""
