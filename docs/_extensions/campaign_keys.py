"""Describes the keys of a campaign file from its JSON schema as Markdown."""

from typing import Any

from command_pages import application
from markdown import code, table

from hpc_lpm.campaign.config import campaign_schema

Schema = dict[str, Any]


def campaign_keys() -> str:
    """Return the table of all keys, then a section for each kind of value with keys of its own."""
    schema = campaign_schema()
    helps = _train_helps()
    parts = [schema.get("description", ""), _keys(schema, helps)]
    for name, section in sorted(schema.get("$defs", {}).items()):
        if "properties" in section:
            parts += [f"### {name}", section.get("description", ""), _keys(section, helps)]
    return "\n\n".join(part for part in parts if part)


def _keys(schema: Schema, helps: dict[str, str]) -> str:
    required = schema.get("required", [])
    rows = []
    for key, value in schema["properties"].items():
        default = "required" if key in required else _default(value)
        rows.append([code(key), _kind(value), default, _meaning(key, value, helps)])
    return table(["key", "value", "default", "meaning"], rows)


def _meaning(key: str, value: Schema, helps: dict[str, str]) -> str:
    """Return the key's own description, or else that of the option of `train` of its name."""
    if "description" in value:
        return str(value["description"])
    if "$ref" in value:
        return "a section of its own"
    option = key.replace("_", "-")
    return next((helps[name] for name in (option, f"lr-{option}") if name in helps), "")


def _train_helps() -> dict[str, str]:
    return {
        name.removeprefix("--"): parameter.help
        for parameter in application().commands["train"].params
        for name in parameter.opts
        if getattr(parameter, "help", None)
    }


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
