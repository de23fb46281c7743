"""The manifests: valid for every Kubernetes that they are meant for, true to each other and to the service."""

from pathlib import Path

import pytest
from kubernetes_validate import ValidationError, latest_version, validate
from ruamel.yaml import YAML

from graphql_api import __version__, server
from graphql_api.settings import Settings
from graphql_api.web.probes import PROBES

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
OLDEST = "1.30"  # a preStop that sleeps came with it


def load(path):
    return YAML(typ="safe").load(path.read_text())


KUSTOMIZATIONS = {path: load(path) for path in sorted(FOLDER.rglob("kustomization.yaml"))}
MANIFESTS = {path: load(path) for path in sorted(FOLDER.rglob("*.yaml")) if path not in KUSTOMIZATIONS}
BY_KIND = {manifest["kind"]: manifest for manifest in MANIFESTS.values()}
DEPLOYMENT, JOB = BY_KIND["Deployment"]["spec"], BY_KIND["Job"]["spec"]
PODS = [pytest.param(owner["template"], id=kind) for kind, owner in [("Deployment", DEPLOYMENT), ("Job", JOB)]]
SERVER = DEPLOYMENT["template"]["spec"]["containers"][0]
LABELS = DEPLOYMENT["template"]["metadata"]["labels"]


@pytest.mark.parametrize("version", [OLDEST, latest_version()])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_is_valid(path, version):
    validate(MANIFESTS[path], version, strict=True)


def test_the_validator_sees_what_is_wrong():
    for wrong in ({"replica": 2}, {"replicas": "two"}):
        manifest = {**BY_KIND["Deployment"], "spec": {**DEPLOYMENT, **wrong}}
        with pytest.raises(ValidationError):
            validate(manifest, latest_version(), strict=True)


def test_every_manifest_is_in_a_kustomization_with_the_image_of_this_release():
    listed = {
        path.parent / name for path, kustomization in KUSTOMIZATIONS.items() for name in kustomization["resources"]
    }
    assert listed == set(MANIFESTS)
    used = {pod.values[0]["spec"]["containers"][0]["image"] for pod in PODS}
    for kustomization in KUSTOMIZATIONS.values():
        (image,) = kustomization["images"]
        assert {image["name"]} == used
        assert image["newTag"] == __version__


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_may_nothing_beyond_its_work(pod):
    (container,) = pod["spec"]["containers"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"].keys() == {"requests", "limits"}


def test_what_selects_the_server_selects_it_and_nothing_else():
    selectors = [
        BY_KIND["Service"]["spec"]["selector"],
        DEPLOYMENT["selector"]["matchLabels"],
        BY_KIND["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        DEPLOYMENT["template"]["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert all(selector == LABELS for selector in selectors)
    assert not LABELS.items() <= JOB["template"]["metadata"]["labels"].items()
    for pod in PODS:
        confined = BY_KIND["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
        assert confined.items() <= pod.values[0]["metadata"]["labels"].items()
    scaled = BY_KIND["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", BY_KIND["Deployment"]["metadata"]["name"])


def test_ports_are_found_by_their_name():
    (port,) = SERVER["ports"]
    probed = [SERVER[f"{probe}Probe"]["httpGet"]["port"] for probe in ("startup", "liveness", "readiness")]
    served = [port["targetPort"] for port in BY_KIND["Service"]["spec"]["ports"]]
    allowed = [port["port"] for rule in BY_KIND["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]]
    assert {*probed, *served, *allowed} == {port["name"]}


def test_probes_ask_what_the_service_answers():
    paths = {route.path for route in PROBES}
    for probe, path in [("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")]:
        assert SERVER[f"{probe}Probe"]["httpGet"]["path"] == path
        assert path in paths


def test_a_pod_has_time_to_answer_what_is_under_way():
    drains = Settings.model_fields["drain_seconds"].default
    assert drains + server._FINISH_SECONDS < DEPLOYMENT["template"]["spec"]["terminationGracePeriodSeconds"]


def test_the_configuration_is_one_that_the_service_takes(monkeypatch):
    given = BY_KIND["ConfigMap"]["data"]
    assert {name.lower() for name in given} <= Settings.model_fields.keys()
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert Settings.load().authenticates
    references = [source[kind]["name"] for source in SERVER["envFrom"] for kind in source]
    assert references == [BY_KIND["ConfigMap"]["metadata"]["name"], "gateway-tokens"]


def test_all_pods_together_leave_the_database_connections_to_spare():
    most = (
        BY_KIND["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] + DEPLOYMENT["strategy"]["rollingUpdate"]["maxSurge"]
    )
    assert most * int(BY_KIND["ConfigMap"]["data"]["DATABASE_POOL_SIZE"]) < 100  # PostgreSQL's default max_connections
