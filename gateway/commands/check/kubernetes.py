"""Reads Kubernetes manifests: a pod, or what makes pods, with the gateway as one of its containers.

The containers of a pod share its network, so the others are workloads. Secrets and config maps are
read if they are in the manifest too.
"""

import binascii
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.commands.check.document import parse_all
from gateway.commands.check.mounting import as_list, as_mapping
from gateway.commands.check.translation import Translated, choose, literal, report_unknown
from gateway.model.frozen import frozen
from gateway.settings.findings import Findings

_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_HELD: Final = ("Secret", "ConfigMap")
_DEEPEST: Final = 8


def translate_kubernetes(
    text: str, wanted: str | None, where: str, findings: Findings
) -> Translated:
    """Return the pod with the container that is `wanted` as a compose document.

    Raises ConfigError if there is none.
    """
    try:
        manifest = _Manifest(where, findings)
        for document in parse_all(text, where, findings):
            manifest.add(as_mapping(document))
        names = [name for pod in manifest.pods for name in pod.containers]
        images = {
            n: str(c.get("image", "")) for p in manifest.pods for n, c in p.containers.items()
        }
        name = choose(names, images, wanted, where, findings)
        pod = next(pod for pod in manifest.pods if name in pod.containers)
        services = literal(manifest.services(pod, name))
        tops = literal({"configs": manifest.configs})
    except RecursionError:
        findings.problem(where, "contains itself, or is nested too deeply; simplify it")
        raise findings.to_error() from None
    return Translated({"services": services, **tops}, name, "kubernetes")


@frozen
class _Pod:
    """A pod's specification, its labels, and its containers by name."""

    spec: Mapping[str, Any]
    labels: Mapping[str, Any]
    containers: Mapping[str, Mapping[str, Any]]


@dataclass
class _Manifest:
    """All documents of a manifest."""

    where: str
    findings: Findings
    pods: list[_Pod] = field(default_factory=list)
    held: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    exposing: list[Mapping[str, Any]] = field(default_factory=list)
    configs: dict[str, Any] = field(default_factory=dict)

    def add(self, document: Mapping[str, Any], depth: int = 0) -> None:
        """Add a document, or all that is in a list of them."""
        kind, spec = str(document.get("kind", "")), as_mapping(document.get("spec"))
        name = str(as_mapping(document.get("metadata")).get("name", ""))
        if kind in _HELD:
            self.held[kind, name] = dict(_contents(document))
        elif kind == "Service":
            self.exposing.append(spec)
        elif kind.endswith("List") and depth < _DEEPEST:
            for item in as_list(document.get("items")):
                self.add(as_mapping(item), depth + 1)
        else:
            self._add_pods(document)

    def _add_pods(self, document: Mapping[str, Any]) -> None:
        """Find the pod in a document: `spec` is its own, or of a template, or of a job's."""
        template = document
        for _ in range(_DEEPEST):
            spec = as_mapping(template.get("spec"))
            containers = {
                str(one.get("name", "")): one
                for key in ("initContainers", "containers")
                for one in map(as_mapping, as_list(spec.get(key)))
            }
            if containers:
                labels = as_mapping(as_mapping(template.get("metadata")).get("labels"))
                self.pods.append(_Pod(spec, labels, containers))
                return
            template = as_mapping(spec.get("template") or spec.get("jobTemplate"))

    def services(self, pod: _Pod, name: str) -> dict[str, Any]:
        """Return the containers of a pod as services, the one called `name` as the gateway."""
        found = {
            other: {"network_mode": f"service:{name}", **self._said(one, Findings())}
            for other, one in pod.containers.items()
            if other != name
        }
        container = pod.containers[name]
        own = self._said(container, self.findings)
        context = {**as_mapping(pod.spec.get("securityContext")), **_context(container)}
        capabilities = as_mapping(context.get("capabilities"))
        own |= {
            "cap_add": as_list(capabilities.get("add")),
            "cap_drop": as_list(capabilities.get("drop")),
            "privileged": str(context.get("privileged", "false")),
            "read_only": str(context.get("readOnlyRootFilesystem", "false")),
            "user": str(context.get("runAsUser", "")),
            "expose": [*self._reached(pod)],
            "entrypoint": as_list(container.get("command")),
        }
        own |= self._mounted(pod, container)
        if str(pod.spec.get("hostNetwork", "")).lower() == "true":
            own["network_mode"] = "host"
        return {name: own, **found}

    def _said(self, container: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
        """Return the image, the variables and the words of a container."""
        return {
            "image": container.get("image"),
            "environment": dict(self._variables(container, findings)),
            "command": as_list(container.get("args")),
        }

    def _variables(
        self, container: Mapping[str, Any], findings: Findings
    ) -> Iterator[tuple[str, str]]:
        for source in map(as_mapping, as_list(container.get("envFrom"))):
            prefix = str(source.get("prefix") or "")
            for kind, key in zip(_HELD, ("secretRef", "configMapRef"), strict=True):
                name = str(as_mapping(source.get(key)).get("name", ""))
                held = self.held.get((kind, name))
                if held is not None:
                    yield from ((prefix + key, value) for key, value in held.items())
                elif name:
                    findings.warn(
                        self.where,
                        f"{kind} {name} is not here and is not checked; append its manifest",
                    )
        for entry in map(as_mapping, as_list(container.get("env"))):
            name, value = str(entry.get("name", "")), self._value(entry, findings)
            if name and value is not None:
                yield name, value

    def _value(self, entry: Mapping[str, Any], findings: Findings) -> str | None:
        """Return the value of a variable, None if it is not known."""
        if entry.get("value") is not None:
            return str(entry["value"])
        source = as_mapping(entry.get("valueFrom"))
        for kind, key in zip(_HELD, ("secretKeyRef", "configMapKeyRef"), strict=True):
            reference = as_mapping(source.get(key))
            held = self.held.get((kind, str(reference.get("name", ""))), {})
            if str(reference.get("key", "")) in held:
                return held[str(reference["key"])]
            if reference:
                said = f"the {kind} {reference.get('name', '')}"
                return report_unknown(str(entry.get("name", "")), said, self.where, findings)
        return None

    def _reached(self, pod: _Pod) -> Iterator[str]:
        """Yield the ports that a service or a probe of the kubelet reaches."""
        for port in self._ports_reached(pod):
            number = _number(port.get("target"), pod)
            if number:
                yield f"{number}/{str(port.get('protocol') or 'TCP').lower()}"

    def _ports_reached(self, pod: _Pod) -> Iterator[Mapping[str, Any]]:
        for service in self.exposing:
            selector = as_mapping(service.get("selector"))
            if selector and selector.items() <= dict(pod.labels).items():
                for port in map(as_mapping, as_list(service.get("ports"))):
                    target = port.get("targetPort") or port.get("port")
                    yield {"target": target, "protocol": port.get("protocol")}
        for container in pod.containers.values():
            for probe in (as_mapping(container.get(key)) for key in _PROBES):
                for kind in ("httpGet", "tcpSocket", "grpc"):
                    yield {"target": as_mapping(probe.get(kind)).get("port")}

    def _mounted(self, pod: _Pod, container: Mapping[str, Any]) -> dict[str, Any]:
        """Return the volumes of a container: files of the manifest, directories of the host."""
        volumes = {str(one.get("name")): one for one in _mappings(pod.spec.get("volumes"))}
        found: dict[str, list[Any]] = {"configs": [], "volumes": [], "tmpfs": []}
        for mount in _mappings(container.get("volumeMounts")):
            volume = volumes.get(str(mount.get("name")), {})
            place = str(mount.get("mountPath", ""))
            host = as_mapping(volume.get("hostPath")).get("path")
            files = self._files(volume)
            if files is not None:
                found["configs"] += self._placed(files, mount, place)
            elif host:
                found["volumes"].append({"type": "bind", "source": host, "target": place})
            elif "emptyDir" in volume:
                found["tmpfs"].append(place)
            else:
                found["volumes"].append({"source": mount.get("name"), "target": place})
        return found

    def _files(self, volume: Mapping[str, Any]) -> Mapping[str, str] | None:
        """Return the files of a secret or config map by name, None if it is not here."""
        for kind, key, named in (
            ("Secret", "secret", "secretName"),
            ("ConfigMap", "configMap", "name"),
        ):
            source = as_mapping(volume.get(key))
            held = self.held.get((kind, str(source.get(named, ""))))
            if held is not None:
                items = [
                    (str(one.get("key")), str(one.get("path")))
                    for one in _mappings(source.get("items"))
                ]
                return {path: held[key] for key, path in items if key in held} if items else held
        return None

    def _placed(
        self, files: Mapping[str, str], mount: Mapping[str, Any], place: str
    ) -> Iterator[dict[str, str]]:
        """Yield the files as configs, and add those to the top of the document."""
        one = mount.get("subPath")
        for name, text in files.items():
            if one in (None, name):
                source = f"{mount.get('name')}-{name}"
                self.configs[source] = {"content": text}
                yield {"source": source, "target": place if one else f"{place}/{name}"}


def _mappings(value: Any) -> Sequence[Mapping[str, Any]]:
    return [as_mapping(one) for one in as_list(value)]


def _context(container: Mapping[str, Any]) -> Mapping[str, Any]:
    return as_mapping(container.get("securityContext"))


def _number(port: Any, pod: _Pod) -> str:
    """Return the number of a port that may be written by its name."""
    text = str(port or "")
    if text.isdigit():
        return text
    for container in pod.containers.values():
        for one in _mappings(container.get("ports")):
            if text and one.get("name") == text:
                return str(one.get("containerPort", ""))
    return ""


def _contents(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a secret or a config map holds, as text."""
    is_secret = document.get("kind") == "Secret"
    for name, value in as_mapping(document.get("data")).items():
        try:
            yield str(name), b64decode(str(value)).decode() if is_secret else str(value)
        except (binascii.Error, ValueError):
            continue
    for name, value in as_mapping(document.get("stringData")).items():
        yield str(name), str(value)
