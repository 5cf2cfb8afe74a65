"""Real kubectl against the API, over HTTPS: what operators do all day."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
import yaml

from tests.controlplane.api.serving import Background, Kubectl, until

RESOURCES = """
apiVersion: v1
kind: Namespace
metadata:
  name: {namespace}
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: reviews
  namespace: {namespace}
  labels: {{app: reviews}}
spec:
  hosts: [reviews]
  http:
  - timeout: 1.5s
    route:
    - destination: {{host: reviews, subset: v1}}
      weight: 90
    - destination: {{host: reviews, subset: v2}}
      weight: 10
---
apiVersion: v1
kind: Service
metadata: {{name: reviews, namespace: {namespace}}}
spec:
  selector: {{app: reviews}}
  ports:
  - {{name: http, port: 9080, targetPort: 8080}}
  - {{name: metrics, port: 9090}}
"""


@pytest.fixture
def namespace() -> str:
    """One that is not there yet."""
    return f"shop-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def applied(kubectl: Kubectl, namespace: str) -> str:
    """The namespace in which all of RESOURCES is."""
    kubectl("apply", "-f", "-", input=RESOURCES.format(namespace=namespace))
    return namespace


def as_json(kubectl: Kubectl, *arguments: str) -> dict:
    return json.loads(kubectl(*arguments, "-o", "json"))


def test_apply_creates_then_changes_nothing_then_changes(kubectl: Kubectl, namespace: str) -> None:
    text = RESOURCES.format(namespace=namespace)
    assert kubectl("apply", "-f", "-", input=text).splitlines() == [
        f"namespace/{namespace} created",
        "virtualservice.networking.istio.io/reviews created",
        "service/reviews created",
    ]
    assert kubectl("apply", "-f", "-", input=text).splitlines() == [
        f"namespace/{namespace} unchanged",
        "virtualservice.networking.istio.io/reviews unchanged",
        "service/reviews unchanged",
    ]
    changed = text.replace("weight: 90", "weight: 50").replace("weight: 10", "weight: 50").replace("9090", "9091")
    assert kubectl("apply", "-f", "-", input=changed).splitlines() == [
        f"namespace/{namespace} unchanged",
        "virtualservice.networking.istio.io/reviews configured",
        "service/reviews configured",
    ]
    route = as_json(kubectl, "get", "vs", "reviews", "-n", namespace)
    assert [one["weight"] for one in route["spec"]["http"][0]["route"]] == [50, 50]
    assert route["metadata"]["generation"] == 2
    service = as_json(kubectl, "get", "svc", "reviews", "-n", namespace)
    # Ports are merged by their number: the one that is gone from the file is gone here, the other has kept its place.
    assert [port["port"] for port in service["spec"]["ports"]] == [9080, 9091]


def test_get_in_every_form(kubectl: Kubectl, applied: str) -> None:
    row = next(line.split() for line in kubectl("get", "virtualservices", "-A").splitlines() if applied in line)
    assert row[:3] == [applied, "reviews", '["reviews"]'] and row[3].endswith("s")
    wide = kubectl("get", "svc", "-n", applied, "-o", "wide").splitlines()
    assert wide[0].split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"]
    assert wide[1].split()[4] == "9080/TCP,9090/TCP" and wide[1].split()[-1] == "app=reviews"
    told = yaml.safe_load(kubectl("get", "vs", "reviews", "-n", applied, "-o", "yaml"))
    assert told["apiVersion"] == "networking.istio.io/v1" and told["spec"]["http"][0]["timeout"] == "1.5s"
    old = as_json(kubectl, "get", "virtualservices.v1alpha3.networking.istio.io", "reviews", "-n", applied)
    assert old["apiVersion"] == "networking.istio.io/v1alpha3" and old["spec"] == told["spec"]
    assert kubectl("get", "vs", "-n", applied, "-l", "app=reviews", "-o", "name") == (
        "virtualservice.networking.istio.io/reviews\n"
    )
    assert "No resources found" in kubectl("get", "vs", "-n", applied, "-l", "app in (other),!x")
    assert kubectl("get", "vs", "-n", applied, "--field-selector", "metadata.name=reviews", "-o", "name") != ""
    assert "reviews" in kubectl("get", "istio-io", "-n", applied)


def test_describe(kubectl: Kubectl, applied: str) -> None:
    described = kubectl("describe", "virtualservice", "reviews", "-n", applied)
    assert "Kind:         VirtualService" in described and "Weight:    90" in described
    assert "9080/TCP" in kubectl("describe", "service", "reviews", "-n", applied)
    assert "Status:" in kubectl("describe", "namespace", applied)


def test_edit(kubectl: Kubectl, applied: str, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/weight: 90/weight: 80/; s/weight: 10/weight: 20/; s/9090/9095/" "$1"\n')
    editor.chmod(0o755)
    for kind in ("virtualservice", "service"):
        assert "edited" in kubectl("edit", kind, "reviews", "-n", applied, environment={"KUBE_EDITOR": str(editor)})
    route = as_json(kubectl, "get", "vs", "reviews", "-n", applied)["spec"]["http"][0]["route"]
    assert [one["weight"] for one in route] == [80, 20]
    ports = as_json(kubectl, "get", "svc", "reviews", "-n", applied)["spec"]["ports"]
    assert [port["port"] for port in ports] == [9080, 9095]


def test_patch_label_and_annotate(kubectl: Kubectl, applied: str) -> None:
    where = ("reviews", "-n", applied)
    kubectl("patch", "vs", *where, "--type=merge", "-p", '{"spec":{"hosts":["reviews","other"]}}')
    kubectl("patch", "vs", *where, "--type=json", "-p", '[{"op":"replace","path":"/spec/hosts/1","value":"third"}]')
    kubectl("patch", "svc", *where, "-p", '{"spec":{"ports":[{"port":9090,"name":"measures"}]}}')
    kubectl("label", "vs", *where, "tier=front")
    kubectl("annotate", "svc", *where, "example.com/note=kept")
    route, service = as_json(kubectl, "get", "vs", *where), as_json(kubectl, "get", "svc", *where)
    assert route["spec"]["hosts"] == ["reviews", "third"]
    assert route["metadata"]["labels"] == {"app": "reviews", "tier": "front"}
    assert [port["name"] for port in service["spec"]["ports"]] == ["http", "measures"]
    assert service["metadata"]["annotations"]["example.com/note"] == "kept"
    kubectl("label", "vs", *where, "tier-")
    assert as_json(kubectl, "get", "vs", *where)["metadata"]["labels"] == {"app": "reviews"}


def test_explain(kubectl: Kubectl) -> None:
    explained = kubectl("explain", "virtualservice.spec.http.retries")
    assert "perTryTimeout" in explained and "<string>" in explained
    assert "targetPort" in kubectl("explain", "service.spec.ports")


def test_api_resources_and_versions(kubectl: Kubectl) -> None:
    lines = [line.split() for line in kubectl("api-resources").splitlines()]
    assert ["virtualservices", "vs", "networking.istio.io/v1", "true", "VirtualService"] in lines
    assert ["namespaces", "ns", "v1", "false", "Namespace"] in lines
    assert "networking.istio.io/v1alpha3" in kubectl("api-versions").split()
    assert "mizzen" in kubectl("version")


def test_diff_shows_a_change_and_makes_none(kubectl: Kubectl, applied: str) -> None:
    text = RESOURCES.format(namespace=applied)
    assert kubectl("diff", "-f", "-", input=text) == ""
    shown = kubectl("diff", "-f", "-", input=text.replace("1.5s", "2s"), status=1)
    assert "-    timeout: 1.5s" in shown and "+    timeout: 2s" in shown
    assert as_json(kubectl, "get", "vs", "reviews", "-n", applied)["spec"]["http"][0]["timeout"] == "1.5s"


def test_dry_run_on_the_server(kubectl: Kubectl, applied: str) -> None:
    text = RESOURCES.format(namespace=applied).replace("name: reviews", "name: unwritten")
    assert "created (server dry run)" in kubectl("apply", "--dry-run=server", "-f", "-", input=text)
    assert "NotFound" in kubectl("get", "vs", "unwritten", "-n", applied, status=1)


def test_apply_of_a_directory(kubectl: Kubectl, namespace: str, tmp_path: Path) -> None:
    for number, document in enumerate(RESOURCES.format(namespace=namespace).split("---")):
        (tmp_path / f"{number}.yaml").write_text(document)
    assert kubectl("apply", "-f", str(tmp_path)).count("created") == 3


def test_apply_with_prune(kubectl: Kubectl, applied: str) -> None:
    kept = RESOURCES.format(namespace=applied).split("---")[1].replace("name: reviews", "name: ratings", 1)
    option = "--prune-allowlist" if "--prune-allowlist" in kubectl("apply", "--help") else "--prune-whitelist"
    pruned = kubectl(
        "apply", "-f", "-", "--prune", "-l", "app=reviews", option, "networking.istio.io/v1/VirtualService", input=kept
    )
    assert "ratings created" in pruned and "reviews pruned" in pruned
    assert kubectl("get", "vs", "-n", applied, "-o", "name") == "virtualservice.networking.istio.io/ratings\n"


def test_create_and_replace(kubectl: Kubectl, applied: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\x00")
    for arguments in (
        ["configmap", "settings", "--from-literal=a=b", f"--from-file={tmp_path}/file"],
        ["secret", "generic", "keys", "--from-literal=password=secret"],
        ["service", "clusterip", "front", "--tcp=80:8080", "--tcp=443:tls"],
        ["service", "clusterip", "headless", "--clusterip=None"],
        ["service", "externalname", "outside", "--external-name=example.com"],
        ["service", "nodeport", "node", "--tcp=80", "--node-port=30080"],
    ):
        wanted = json.loads(kubectl("create", *arguments, "-n", applied, "--dry-run=client", "-o", "json"))
        kubectl("create", *arguments, "-n", applied)
        made = as_json(kubectl, "get", arguments[0], wanted["metadata"]["name"], "-n", applied)
        for field in ("data", "binaryData"):
            assert made.get(field) == wanted.get(field)
        for field, value in wanted.get("spec", {}).items():
            if field == "ports":
                value = [{**port, "targetPort": port.get("targetPort") or port["port"]} for port in value]
            assert made["spec"][field] == value, field
        assert made["metadata"].get("labels") == wanted["metadata"].get("labels")
    assert "password:  6 bytes" in kubectl("describe", "secret", "keys", "-n", applied)
    kubectl("create", "namespace", f"{applied}-more")
    text = RESOURCES.format(namespace=applied).split("---")[1]
    assert "AlreadyExists" in kubectl("create", "-f", "-", input=text, status=1)
    assert "replaced" in kubectl("replace", "-f", "-", input=text.replace("1.5s", "2s"))
    assert as_json(kubectl, "get", "vs", "reviews", "-n", applied)["spec"]["http"][0]["timeout"] == "2s"
    assert "replaced" in kubectl("replace", "--force", "-f", "-", input=text)


def test_delete(kubectl: Kubectl, applied: str) -> None:
    assert kubectl("delete", "vs", "reviews", "-n", applied) == (
        'virtualservice.networking.istio.io "reviews" deleted\n'
    )
    assert "NotFound" in kubectl("delete", "vs", "reviews", "-n", applied, status=1)
    assert kubectl("delete", "svc", "--all", "-n", applied) == 'service "reviews" deleted\n'


def test_a_namespace_takes_its_resources_with_it(kubectl: Kubectl, applied: str) -> None:
    assert kubectl("delete", "namespace", applied) == f'namespace "{applied}" deleted\n'
    assert "No resources found" in kubectl("get", "vs,svc", "-n", applied)
    assert "may not be deleted" in kubectl("delete", "namespace", "istio-system", status=1)


def test_invalid_resources_are_refused_by_the_field(kubectl: Kubectl, applied: str) -> None:
    text = RESOURCES.format(namespace=applied)
    refused = kubectl("apply", "-f", "-", input=text.replace("timeout: 1.5s", "timeout: soon"), status=1)
    assert "spec.http[0].timeout" in refused and "is not a duration" in refused
    refused = kubectl("apply", "--validate=false", "-f", "-", input=text.replace("timeout:", "timeot:"), status=1)
    assert "spec.http[0].timeot" in refused and "did you mean timeout?" in refused
    # What kubectl judges by itself, it finds in the schemas; newer ones ask the server.
    assert "timeot" in kubectl("apply", "-f", "-", input=text.replace("timeout:", "timeot:"), status=1)
    assert "not found" in kubectl("apply", "-f", "-", input=text.split("---")[1].replace(applied, "nowhere"), status=1)
    assert as_json(kubectl, "get", "vs", "reviews", "-n", applied)["spec"]["http"][0]["timeout"] == "1.5s"


def test_watch(kubectl: Kubectl, applied: str, background: Background) -> None:
    before = background.served.application.watches.open
    with kubectl.start("get", "vs", "-n", applied, "-w", "--output-watch-events") as watcher:
        try:
            assert watcher.stdout is not None
            assert watcher.stdout.readline().split()[:2] == ["EVENT", "NAME"]
            assert watcher.stdout.readline().split()[:2] == ["ADDED", "reviews"]
            until(lambda: background.served.application.watches.open > before)
            kubectl("label", "vs", "reviews", "-n", applied, "tier=front")
            assert watcher.stdout.readline().split()[:2] == ["MODIFIED", "reviews"]
            kubectl("delete", "vs", "reviews", "-n", applied)
            assert watcher.stdout.readline().split()[:2] == ["DELETED", "reviews"]
        finally:
            watcher.kill()
    until(lambda: background.served.application.watches.open == before)


def test_wait_for_a_deletion(kubectl: Kubectl, applied: str, background: Background) -> None:
    before = background.served.application.watches.open
    with kubectl.start("wait", "--for=delete", "vs/reviews", "-n", applied, "--timeout=20s") as waiting:
        until(lambda: background.served.application.watches.open > before)
        kubectl("delete", "vs", "reviews", "-n", applied)
        assert waiting.wait(20) == 0
