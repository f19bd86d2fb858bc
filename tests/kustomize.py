"""What `kubectl kustomize` makes of docs/kubernetes: as much of it as the files there use.

Resources, components, and strategic merge patches, in which the items of lists have names. Any
other field of a kustomization is an error here. tests/systemd compares the result with kubectl's.
"""

from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).resolve().parents[1] / "docs/kubernetes"
OVERLAYS = ("base", "overlays/example", "overlays/userspace")
_KEYS = {"volumeMounts": "mountPath", "ports": "containerPort"}
"""By what Kubernetes merges the items of a list; by their name elsewhere."""


def composed(directory: Path, before: list[Any] | None = None) -> list[Any]:
    """Return the resources of a kustomization, those that a component is added to in `before`."""
    given = yaml.safe_load((directory / "kustomization.yaml").read_text(encoding="utf-8"))
    known = {"apiVersion", "kind", "resources", "components", "patches"}
    if unknown := given.keys() - known:
        raise NotImplementedError(f"{directory}: {unknown}")
    found = list(before or [])
    for name in given.get("resources", []):
        path = directory / name
        if path.is_dir():
            found += composed(path.resolve())
        else:
            found += yaml.safe_load_all(path.read_text(encoding="utf-8"))
    for name in given.get("components", []):
        found = composed((directory / name).resolve(), found)
    for patch in given.get("patches", []):
        (change,) = yaml.safe_load_all((directory / patch["path"]).read_text(encoding="utf-8"))
        at = next(at for at, it in enumerate(found) if _is_same(it, change))
        found[at] = merged(found[at], change)
    return found


def merged(one: Any, other: Any, key: str = "") -> Any:
    """Return `one` with the changes of `other`; `key` is the field that has them."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one | {name: merged(one.get(name), it, name) for name, it in other.items()}
    if isinstance(one, list) and isinstance(other, list) and isinstance(other[0], dict):
        field = _KEYS.get(key, "name")
        left = {item[field]: item for item in one}
        changed = {item[field]: merged(left.get(item[field], {}), item) for item in other}
        return list((left | changed).values())
    return other


def _is_same(one: Any, other: Any) -> bool:
    return one["kind"] == other["kind"] and one["metadata"]["name"] == other["metadata"]["name"]
