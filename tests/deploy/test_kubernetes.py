"""The manifests: valid for every Kubernetes that they are meant for, true to each other and to the service."""

import re
import shutil
import subprocess
import sys
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
import typer
from cloudcoil.models.prometheus_operator import v1 as operator
from kubernetes_validate import ValidationError, latest_version, validate
from ruamel.yaml import YAML

from graphql_api import __version__, server
from graphql_api.cli.main import cli
from graphql_api.deliveries.sending import TIMEOUT_SECONDS
from graphql_api.gateway_apis.jobs import duration
from graphql_api.settings import Settings
from graphql_api.settings.advice import weaknesses
from graphql_api.web.probes import PROBES

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
OLDEST = "1.30"  # a preStop that sleeps came with it


def load(path):
    return YAML(typ="safe").load(path.read_text())


def settings_of(path):
    """The variables of an env file."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if line and not line.startswith("#"))


KUSTOMIZATIONS = {path: load(path) for path in sorted(FOLDER.rglob("kustomization.yaml"))}
MANIFESTS = {path: load(path) for path in sorted(FOLDER.rglob("*.yaml")) if path not in KUSTOMIZATIONS}
CUSTOM = {"PodMonitor", "PrometheusRule"}  # of the Prometheus operator
KNOWN = [path for path, manifest in MANIFESTS.items() if manifest["kind"] not in CUSTOM]
BY_KIND = {manifest["kind"]: manifest for path, manifest in MANIFESTS.items() if path.parent.name != "deliveries"}
DEPLOYMENT, JOB = BY_KIND["Deployment"]["spec"], BY_KIND["Job"]["spec"]
CHECK = BY_KIND["CronJob"]["spec"]["jobTemplate"]["spec"]
DELIVERIES = MANIFESTS[FOLDER / "deliveries/deployment.yaml"]["spec"]
OWNERS = [("Deployment", DEPLOYMENT), ("Job", JOB), ("CronJob", CHECK), ("Deliveries", DELIVERIES)]
PODS = [pytest.param(owner["template"], id=kind) for kind, owner in OWNERS]
SERVER = DEPLOYMENT["template"]["spec"]["containers"][0]
LABELS = DEPLOYMENT["template"]["metadata"]["labels"]
COMMANDS = typer.main.get_command(cli)
SETTINGS = settings_of(FOLDER / "release/configuration.env")


@pytest.fixture(scope="module")
def built():
    """Builds a kustomization: the manifests that would be applied, by kind."""
    kubectl = Path(sys.executable).with_name("kubectl")

    @cache
    def build(folder):
        made = subprocess.run([kubectl, "kustomize", FOLDER / folder], capture_output=True, text=True, check=False)
        assert (made.returncode, made.stderr) == (0, ""), made.stderr
        return {manifest["kind"]: manifest for manifest in YAML(typ="safe").load_all(made.stdout)}

    return build


@pytest.mark.parametrize("version", [OLDEST, latest_version()])
@pytest.mark.parametrize("path", KNOWN, ids=lambda path: path.name)
def test_a_manifest_is_valid(path, version):
    validate(MANIFESTS[path], version, strict=True)


def test_the_validator_sees_what_is_wrong():
    for wrong in ({"replica": 2}, {"replicas": "two"}):
        manifest = {**BY_KIND["Deployment"], "spec": {**DEPLOYMENT, **wrong}}
        with pytest.raises(ValidationError):
            validate(manifest, latest_version(), strict=True)


def fits_its_definition(manifest):
    """Whether it is valid by the models of the operator's custom resources, which drop what they do not know."""
    model = getattr(operator, manifest["kind"]).model_validate(manifest)
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True) == manifest


@pytest.mark.parametrize("kind", sorted(CUSTOM))
def test_a_manifest_of_the_prometheus_operator_is_valid(kind):
    assert fits_its_definition(BY_KIND[kind])


def test_the_definitions_see_what_is_wrong():
    monitor, rules = BY_KIND["PodMonitor"], BY_KIND["PrometheusRule"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert not fits_its_definition({**monitor, "spec": {**monitor["spec"], "selectors": {}}})
    assert not fits_its_definition(
        {**rules, "spec": {"groups": [{"name": "g", "rules": [{"expr": "1", "alerts": "A"}]}]}}
    )
    for wrong in (
        {**monitor, "spec": {**monitor["spec"], "podMetricsEndpoints": [{**endpoint, "interval": "soon"}]}},
        {**rules, "spec": {"groups": [{"name": "gateway-tokens", "rules": [{"alert": "A"}]}]}},
    ):
        with pytest.raises(ValueError, match=wrong["kind"]):
            fits_its_definition(wrong)


def test_every_manifest_is_in_a_kustomization():
    listed = {
        path.parent / name
        for path, kustomization in KUSTOMIZATIONS.items()
        for name in kustomization.get("resources", [])
    }
    assert listed == set(MANIFESTS)


def test_the_image_of_this_release_is_said_in_one_place():
    ((path, (image,)),) = ((path, each["images"]) for path, each in KUSTOMIZATIONS.items() if "images" in each)
    assert {image["name"]} == {pod.values[0]["spec"]["containers"][0]["image"] for pod in PODS}
    assert image["newTag"] == __version__
    users = {user: each["components"] for user, each in KUSTOMIZATIONS.items() if "components" in each}
    assert {user.parent.name for user in users} == {"kubernetes", "migration", "check", "deliveries"}
    assert {(user.parent / name).resolve() for user, (name,) in users.items()} == {path.parent}


def test_what_is_built_has_the_image_and_the_settings_and_a_job_of_its_release(built):
    service, migration = built("."), built("migration")
    image = f"registry.example/customer-gateway-tokens:{__version__}"
    for owner in (service["Deployment"], migration["Job"]):
        assert owner["spec"]["template"]["spec"]["containers"][0]["image"] == image
    name = migration["Job"]["metadata"]["name"]
    assert name == f"gateway-tokens-migration-{__version__}"
    assert re.findall(r"job/(\S+)", (ROOT / "docs/operations.md").read_text()) == [name]
    for folder, kind in [("migration", "Job"), ("check", "CronJob"), ("deliveries", "Deployment")]:
        manifests = built(folder)
        assert manifests["ConfigMap"] == service["ConfigMap"]
        spec = manifests[kind]["spec"]
        (container,) = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]["containers"]
        assert container["envFrom"][0]["configMapRef"]["name"] == service["ConfigMap"]["metadata"]["name"]
    assert service["ConfigMap"]["data"] == SETTINGS
    (configuration, _) = service["Deployment"]["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert configuration["configMapRef"]["name"] == service["ConfigMap"]["metadata"]["name"] != "gateway-tokens"
    assert built("monitoring").keys() == CUSTOM


NAME = "customer-gateway-tokens"
DIGEST = "sha256:" + "0" * 64


def with_image(folder, **image):
    """A copy of the manifests with another image, written by a program, as `kustomize edit set image` does."""
    copy = shutil.copytree(FOLDER, folder / "kubernetes")
    path = copy / "release/kustomization.yaml"
    YAML(typ="safe").dump({**load(path), "images": [{"name": NAME, **image}]}, path)
    return copy / "migration"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"newTag": "1.2"}, f"{NAME}:1.2"),
        ({"newName": f"registry.example/{NAME}", "newTag": "1.2"}, f"registry.example/{NAME}:1.2"),
        ({"newName": f"registry.example:5000/shop/{NAME}", "newTag": "1.2"}, f"registry.example:5000/shop/{NAME}:1.2"),
        (
            {"newName": f"registry.example/{NAME}", "newTag": "1.2", "digest": DIGEST},
            f"registry.example/{NAME}:1.2@{DIGEST}",
        ),
    ],
)
def test_a_job_is_named_after_the_tag_of_its_image_whoever_wrote_it(built, tmp_path, image, expected):
    job = built(with_image(tmp_path, **image))["Job"]
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == expected
    assert job["metadata"]["name"] == "gateway-tokens-migration-1.2"


@pytest.mark.parametrize(
    "image",
    [{"newName": "registry.example/tokens", "newTag": "1.2"}, {"newName": f"r.example/{NAME}", "digest": DIGEST}],
)
def test_an_image_that_says_no_release_builds_no_job(built, tmp_path, image):
    with pytest.raises(AssertionError, match="out of bounds"):
        built(with_image(tmp_path, **image))


@pytest.mark.parametrize("version", [OLDEST, latest_version()])
@pytest.mark.parametrize("folder", [".", "migration", "check", "deliveries"])
def test_what_is_built_is_valid(built, folder, version):
    for manifest in built(folder).values():
        validate(manifest, version, strict=True)


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
    assert not any(LABELS.items() <= job["template"]["metadata"]["labels"].items() for job in (JOB, CHECK, DELIVERIES))
    for pod in PODS:
        confined = BY_KIND["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
        assert confined.items() <= pod.values[0]["metadata"]["labels"].items()
    scaled = BY_KIND["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", BY_KIND["Deployment"]["metadata"]["name"])


def test_ports_are_found_by_their_name():
    ports = {port["name"]: port["containerPort"] for port in SERVER["ports"]}
    assert ports == {"http": 8000, "metrics": int(SETTINGS["METRICS_PORT"])}
    probed = {SERVER[f"{probe}Probe"]["httpGet"]["port"] for probe in ("startup", "liveness", "readiness")}
    served = {port["name"]: port["targetPort"] for port in BY_KIND["Service"]["spec"]["ports"]}
    assert (probed, served) == ({"http"}, {"http": "http"})
    (endpoint,) = BY_KIND["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("metrics", "/metrics")
    assert BY_KIND["PodMonitor"]["spec"]["selector"]["matchLabels"] == LABELS


def allowed(port, namespace, labels):
    """Whether the network policy lets a pod of this namespace connect to the port."""

    def fits(peer):
        names = peer.get("namespaceSelector", {}).get("matchLabels", {}).values()
        wanted = peer.get("podSelector", {}).get("matchLabels", {})
        is_near = "namespaceSelector" in peer or namespace == "the service's own"
        return is_near and all(name == namespace for name in names) and wanted.items() <= labels.items()

    rules = BY_KIND["NetworkPolicy"]["spec"]["ingress"]
    return any(
        port in [each["port"] for each in rule["ports"]] and any(fits(peer) for peer in rule["from"]) for rule in rules
    )


def test_gateways_and_the_ingress_reach_the_service_and_prometheus_its_metrics():
    gateway = {"app.kubernetes.io/name": "graphql-gateway"}
    for port, namespace, labels, expected in [
        ("http", "the service's own", gateway, True),
        ("http", "graph", gateway, True),
        ("http", "ingress-nginx", {}, True),
        ("http", "graph", {}, False),
        ("http", "monitoring", {}, False),
        ("metrics", "monitoring", {}, True),
        ("metrics", "graph", gateway, False),
        ("metrics", "ingress-nginx", {}, False),
    ]:
        assert allowed(port, namespace, labels) is expected, (port, namespace, labels)


def test_the_ingress_leads_to_graphql_the_webhooks_and_the_help_page_alone():
    (rule,) = BY_KIND["Ingress"]["spec"]["rules"]
    paths = {(each["path"], each["pathType"]) for each in rule["http"]["paths"]}
    assert paths == {("/graphql", "Exact"), ("/help/errors", "Exact"), ("/webhooks", "Prefix")}
    (service,) = {each["backend"]["service"]["name"] for each in rule["http"]["paths"]}
    assert service == BY_KIND["Service"]["metadata"]["name"]
    assert [*BY_KIND["Ingress"]["spec"]["tls"][0]["hosts"]] == [rule["host"]]


def test_probes_ask_what_the_service_answers():
    paths = {route.path for route in PROBES}
    for probe, path in [("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")]:
        assert SERVER[f"{probe}Probe"]["httpGet"]["path"] == path
        assert path in paths


def test_a_container_has_time_to_answer_what_is_under_way():
    needed = Settings.model_fields["drain_seconds"].default + server._FINISH_SECONDS
    (stop,) = re.findall(r"docker stop --time (\d+)", (ROOT / "docs/operations.md").read_text())
    (allowed,) = re.findall(r"allow (\d+) s before SIGKILL", (ROOT / "docs/upgrades.md").read_text())
    composed = load(ROOT / "compose.yaml")["services"]["tokens"]["stop_grace_period"]
    assert stop == allowed == composed.removesuffix("s")
    assert needed < int(stop) <= DEPLOYMENT["template"]["spec"]["terminationGracePeriodSeconds"]


def test_deliveries_run_a_command_and_end_before_they_are_killed():
    (container,) = DELIVERIES["template"]["spec"]["containers"]
    assert container["args"] == ["deliver"]
    composed = load(ROOT / "compose.yaml")["services"]["deliveries"]["stop_grace_period"]
    assert DELIVERIES["template"]["spec"]["terminationGracePeriodSeconds"] > TIMEOUT_SECONDS + 5
    assert int(composed.removesuffix("s")) > TIMEOUT_SECONDS + 5
    assert DELIVERIES["selector"]["matchLabels"] == DELIVERIES["template"]["metadata"]["labels"]
    given = {each["name"] for each in container["env"]}
    assert given <= {name.upper() for name in Settings.model_fields}
    assert [each["secretRef"]["name"] for each in container["envFrom"][1:]] == ["gateway-tokens-deliveries"]


def test_the_nightly_check_is_a_command_and_its_key_is_no_secret_of_the_service():
    (container,) = CHECK["template"]["spec"]["containers"]
    name, *options = container["args"]
    known = {option for parameter in COMMANDS.commands[name].params for option in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known
    older_than = duration(options[options.index("--older-than") + 1], "--older-than")
    assert older_than + timedelta(hours=8) < timedelta(days=1)  # the next night asks for all that this one did
    (_, source) = container["envFrom"]
    of_the_service = {each["secretRef"]["name"] for each in SERVER["envFrom"] if "secretRef" in each}
    assert source["secretRef"]["name"] not in of_the_service
    assert {each["name"].lower() for each in container["env"]} <= Settings.model_fields.keys()
    assert CHECK["backoffLimit"] == 0


def test_the_configuration_is_one_that_the_service_takes(monkeypatch):
    assert {name.lower() for name in SETTINGS} <= Settings.model_fields.keys()
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert settings.authenticates
    assert weaknesses(settings) == []
    (generator,) = KUSTOMIZATIONS[FOLDER / "release/kustomization.yaml"]["configMapGenerator"]
    assert generator["envs"] == ["configuration.env"]
    references = [source[kind]["name"] for source in SERVER["envFrom"] for kind in source]
    assert references == [generator["name"], "gateway-tokens"]
    for pod in PODS:
        assert pod.values[0]["spec"]["containers"][0]["envFrom"][0] == {"configMapRef": {"name": generator["name"]}}


def test_all_pods_together_leave_the_database_connections_to_spare():
    most = (
        BY_KIND["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] + DEPLOYMENT["strategy"]["rollingUpdate"]["maxSurge"]
    )
    assert most * int(SETTINGS["DATABASE_POOL_SIZE"]) < 100  # PostgreSQL's default max_connections
