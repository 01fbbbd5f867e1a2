"""Holds every reply that the harness sees against api-spec/openapi.yaml: the path and method must be described, the status listed for them, and a
JSON body must satisfy its schema."""
import json
import os
import re

import jsonschema
import yaml

from harness import ROOT

with open(os.path.join(ROOT, "api-spec/openapi.yaml")) as f:
    SPEC = yaml.safe_load(f)
METHODS = ("get", "put", "post", "delete")
seen = set()


def _pattern(path):
    return re.compile("^" + re.sub(r"\\{[^/]+?\\}", "[^/]+", re.escape(path)) + "$")


_paths = [(_pattern(p), p, item) for p, item in SPEC["paths"].items()]
_paths.sort(key=lambda t: t[1].count("{"))


def _resolve(node):
    """References become the schemas that they name, so that jsonschema needs no resolver."""
    if isinstance(node, dict):
        if "$ref" in node:
            target = SPEC
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            return _resolve(target)
        return {k: _resolve(v) for k, v in node.items()}
    return [_resolve(v) for v in node] if isinstance(node, list) else node


def check(method, path, reply):
    path = path.split("?")[0]
    hit = next(((p, item) for pattern, p, item in _paths if pattern.match(path)), None)
    if hit is None or method.lower() not in hit[1]:
        assert reply.code in (403, 404, 405, 413, 431), f"{method} {path} is not in the specification, yet answered {reply.code}"
        return
    operation = hit[1][method.lower()]
    seen.add(operation["operationId"])
    responses = operation["responses"]
    described = responses.get(str(reply.code)) or responses.get("default")
    assert described, f"{method} {path} answered {reply.code}, which the specification does not list"
    described = _resolve(described)
    kind = (reply.headers.get("Content-Type") or "").split(";")[0]
    content = described.get("content", {})
    assert not content or kind in content, f"{method} {path} {reply.code} has type {kind}, the specification says {list(content)}"
    if kind.endswith("json") and content:
        jsonschema.validate(json.loads(reply.body), content[kind].get("schema", {}), cls=jsonschema.Draft202012Validator)


def operations():
    return {item[m]["operationId"] for item in SPEC["paths"].values() for m in METHODS if m in item}
