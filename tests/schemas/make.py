"""
Writes the schemas against which the files for Kubernetes and Docker Compose are checked.

    pip download --no-deps kubernetes-validate; npm pack dclint
    python tests/schemas/make.py kubernetes_validate-*.whl dclint-*.tgz

The packages carry Kubernetes' OpenAPI definitions, in their strict form, and the schema of the Compose Specification.
Taken are the kinds that our files have, without the descriptions: both packages together are over 20 MB.
"""

import json
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RELEASE = "v1.37.0"
KINDS = {
    "Deployment": "io.k8s.api.apps.v1.Deployment",
    "Ingress": "io.k8s.api.networking.v1.Ingress",
    "Namespace": "io.k8s.api.core.v1.Namespace",
    "PodDisruptionBudget": "io.k8s.api.policy.v1.PodDisruptionBudget",
    "Service": "io.k8s.api.core.v1.Service",
}


def kubernetes(wheel: str) -> dict[str, Any]:
    """Return one schema with the definitions that the kinds refer to."""
    with zipfile.ZipFile(wheel) as package:
        name = f"kubernetes_validate/kubernetes-json-schema/{RELEASE}-local-strict/_definitions.json"
        known = json.loads(package.read(name))["$defs"]
    wanted, found = list(KINDS.values()), dict[str, Any]()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = bare(known[name])
            wanted += [each.rpartition("/")[2] for each in references(found[name])]
    local = json.loads(json.dumps(found).replace("/api/_definitions.json#/", "#/"))
    rules = [
        {"if": {"properties": {"kind": {"const": kind}}}, "then": {"$ref": f"#/$defs/{name}"}}
        for kind, name in KINDS.items()
    ]
    required = {"required": ["apiVersion", "kind"], "properties": {"kind": {"enum": sorted(KINDS)}}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"Kubernetes {RELEASE}, Apache-2.0; made by tests/schemas/make.py",
        **required,
        "allOf": rules,
        "$defs": dict(sorted(local.items())),
    }


def compose(tarball: str) -> Any:
    """Return the schema of the Compose Specification."""
    with tarfile.open(tarball) as package:
        schema = bare(json.load(package.extractfile("package/schemas/compose.schema.json")))  # type: ignore[arg-type]
    return {"$comment": "The Compose Specification, Apache-2.0; made by tests/schemas/make.py", **schema}


def bare(schema: Any) -> Any:
    """Return *schema* without what only explains."""
    if isinstance(schema, list):
        return [bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: bare(value)
        for key, value in schema.items()
        if not key.startswith("x-") and not (key == "description" and isinstance(value, str))
    }


def references(schema: Any) -> Iterator[str]:
    """Yield the references in *schema*."""
    match schema:
        case list():
            for each in schema:
                yield from references(each)
        case dict():
            if isinstance(reference := schema.get("$ref"), str):
                yield reference
            yield from references(list(schema.values()))


def write(name: str, schema: dict[str, Any]) -> None:
    """Write *schema* with one definition a line, so that a new release can be compared."""
    rows = [
        f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
        if key not in ("$defs", "definitions")
        else f"{json.dumps(key)}: {{\n"
        + ",\n".join(f"{json.dumps(each)}:{json.dumps(value[each], separators=(',', ':'))}" for each in value)
        + "\n}"
        for key, value in schema.items()
    ]
    (HERE / name).write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    write("kubernetes.json", kubernetes(sys.argv[1]))
    write("compose.json", compose(sys.argv[2]))
