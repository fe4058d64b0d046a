"""What commands print with ``--json``, held against the schema that swapd publishes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import fastjsonschema

from tests.support.httpd import PROJECT

SCHEMA = PROJECT / "packaging/schema.json"
DEFINITIONS = {"deploy": "deployment", "rollback": "deployment"}  # the others are called after their command


def _closed(schema: Any) -> Any:
    """The same, with no room for keys that it does not name: readers must be ready for them, and a test must not be."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(item) for key, item in schema.items()}
    return {"additionalProperties": False, **closed} if isinstance(schema.get("required"), list) else closed


@cache
def _validator(definition: str) -> Callable[[Any], Any]:
    schema = _closed(json.loads(SCHEMA.read_text()))
    assert definition in schema["definitions"]
    validate: Callable[[Any], Any] = fastjsonschema.compile(
        {**schema, "oneOf": [{"$ref": f"#/definitions/{definition}"}]}
    )
    return validate


def check_document(command: str, document: Any) -> Any:
    """The document, which is as the schema says: with all of its keys, and no others."""
    _validator(DEFINITIONS.get(command, command))(document)
    return document


def check_lines(text: str) -> list[Any]:
    """The documents that ``swapd follow --json`` printed, one a line, each of them as the schema says."""
    return [check_document("follow", json.loads(line)) for line in text.splitlines()]
