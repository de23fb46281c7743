"""What is shipped for Prometheus and Grafana: rules that Prometheus takes, and nothing in them that is not measured."""

import asyncio
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from graphql_api.auth import mint
from graphql_api.domain.caller import ADMIN_SCOPE
from tests.conftest import AUTH_SECRET

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/monitoring/alerts.yaml"
ALERTS = {rule["alert"]: rule for group in YAML(typ="safe").load(RULES)["groups"] for rule in group["rules"]}
PANELS = json.loads((ROOT / "deploy/monitoring/dashboard.json").read_text())["panels"]
TARGETS = [target for panel in PANELS for target in panel.get("targets", [])]
OF_PROMETHEUS = {"instance", "le"}

REQUESTS = "gateway_tokens_request_duration_seconds_count"
OK = f'{REQUESTS}{{outcome="ok"}}', "0+60x120"
# By alert: series that make it fire, a minute a step.
FIRING = {
    "GatewayTokensAbsent": [],
    "GatewayTokensDatabaseAway": [('gateway_tokens_database_away{instance="a"}', "1x120")],
    "GatewayTokensFailing": [OK, (f'{REQUESTS}{{outcome="TIMEOUT"}}', "0+2x120")],
    "GatewayTokensMistake": [OK, (f'{REQUESTS}{{outcome="INTERNAL"}}', "_x50 1x70")],
    "GatewayTokensSlow": [
        (f'{REQUESTS.replace("count", "bucket")}{{le="0.5"}}', "0+97x120"),
        (f'{REQUESTS.replace("count", "bucket")}{{le="1"}}', "0+100x120"),
        (f'{REQUESTS.replace("count", "bucket")}{{le="+Inf"}}', "0+100x120"),
    ],
    "GatewayTokensBusy": [('gateway_tokens_limits_total{limit="MAX_CONCURRENT_REQUESTS",instance="a"}', "0+1x120")],
    "GatewayTokensWaitForConnections": [('gateway_tokens_database_waiting{instance="a"}', "3x120")],
    "GatewayTokensReplicaUnused": [('gateway_tokens_replica_read_from{replica="a"}', "0x120")],
    "GatewayTokensAccessTokensRefused": [OK, (f'{REQUESTS}{{outcome="UNAUTHENTICATED"}}', "0+20x120")],
    "GatewayTokensLimitsMet": [('gateway_tokens_limits_total{limit="MAX_DEPTH"}', "0+10x120")],
    "GatewayTokensWebhooksFail": [('gateway_tokens_webhooks_total{sender="a",status="400"}', "0+1x120")],
    "GatewayTokensNotCompiled": [OK, ('gateway_tokens_engine_fallbacks_total{reason="too deep"}', "0+10x120")],
}


@pytest.fixture(scope="module")
def promtool():
    """Prometheus's own checker, which Debian packages with it."""
    found = shutil.which("promtool")
    if found is None:
        missing = "promtool is missing: `apt-get install prometheus`."
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)

    def run(*arguments):
        return subprocess.run([found, *arguments], capture_output=True, text=True, check=False)

    return run


def evaluated(promtool, folder, series, **tests):
    """Promtool's word on what Prometheus makes of these series."""
    given = [{"series": name, "values": values} for name, values in series]
    test = {"interval": "1m", "input_series": given, **tests}
    file = folder / "tests.yaml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    return promtool("test", "rules", str(file))


def test_prometheus_takes_the_rules(promtool):
    checked = promtool("check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stderr
    assert f"{len(ALERTS)} rules found" in checked.stdout


def test_every_alert_is_tried():
    assert ALERTS.keys() == FIRING.keys()


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_where_it_should_and_is_quiet_where_all_is_well(promtool, tmp_path, alert):
    def fires(series):
        expected = {"eval_time": "1h", "alertname": alert, "exp_alerts": []}
        done = evaluated(promtool, tmp_path, series, alert_rule_test=[expected])
        assert done.returncode == 0 or f"alertname: {alert}" in done.stdout + done.stderr, done.stderr
        return done.returncode != 0

    assert fires(FIRING[alert])
    assert not fires([OK, ('gateway_tokens_build_info{version="1"}', "1x120")])


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_it_is_about_and_where_there_is_more(alert):
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.*)", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {heading.strip("`").lower() for heading in headings}


FIELDS = "id userId gateway gatewayCustomerId isActive createdAt updatedAt version"
USER = '{__typename: "User", id: "u"}'


@pytest.fixture(scope="module")
def scraped(serving, database_url):
    """What a service with two workers tells after it was asked for all sorts of things."""
    service = serving("--workers", "2", DATABASE_REPLICA_URL=database_url, ADYEN_WEBHOOK_HMAC_KEY="00")

    async def work():
        headers = {"authorization": f"Bearer {mint(AUTH_SECRET, 'a-service', [ADMIN_SCOPE])}"}
        many = " ".join(f"a{number}: __typename" for number in range(100))
        fields = " ".join(f"a{n}: customerGatewayTokens {{ nodes {{ {FIELDS} }} }}" for n in range(29))
        async with httpx.AsyncClient(base_url=service.url, headers=headers) as http:
            for query in (
                "query Hi { __typename }",
                "{ nonsense }",
                f"{{ {many} }}",
                f"{{ {fields} }}",
                f"{{ _entities(representations: [{USER}]) {{ ... on User {{ gatewayTokens {{ id }} }} }} }}",
                'mutation { activateCustomerGatewayToken(id: "00000000-0000-0000-0000-000000000000") { user { id } } }',
            ):
                assert (await http.post("/graphql", json={"query": query})).status_code == 200
            assert (await http.post("/webhooks/adyen", json={})).status_code == 400
            return (await http.get("/metrics")).text

    return list(text_string_to_metric_families(asyncio.run(work())))


def labels_of(families):
    """By each name that can be asked for, the labels that it may have."""
    found = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("expression", [rule["expr"] for rule in ALERTS.values()] + [each["expr"] for each in TARGETS])
def test_what_is_asked_for_is_measured(scraped, expression):
    labels = labels_of(scraped)
    names = set(re.findall(r"gateway_tokens_\w+", expression))
    assert names
    assert names <= labels.keys()
    known = OF_PROMETHEUS.union(*(labels[name] for name in names))
    matched = {label for part in re.findall(r"{(.*?)}", expression) for label in re.findall(r"(\w+)\s*[=!]", part)}
    grouped = {label.strip() for part in re.findall(r"\bby \((.*?)\)", expression) for label in part.split(",")}
    assert matched | grouped <= known


def test_a_panel_shows_something(promtool, tmp_path, scraped):
    series = []
    for family in scraped:
        for sample in family.samples:
            labels = ",".join(f"{name}={json.dumps(value)}" for name, value in sample.labels.items())
            series.append((f'{sample.name}{{{labels},instance="a"}}'.replace("{,", "{"), f"{sample.value}+1x60"))
    tests = []
    for target in TARGETS:
        expression = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
        one = {"labels": "{}", "value": 1}
        tests.append({"expr": f"count({expression}) > bool 0", "eval_time": "30m", "exp_samples": [one]})
    done = evaluated(promtool, tmp_path, series, promql_expr_test=tests)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_legend_names_what_its_expression_keeps():
    for target in TARGETS:
        kept = re.findall(r"\bby \((.*?)\)", target["expr"])
        named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert named <= {label.strip() for part in kept for label in part.split(",")}, target


def test_the_page_for_operators_names_every_metric_and_its_labels(scraped):
    page = (ROOT / "docs/observability.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?)\|", page, re.MULTILINE)
    told = {name.removesuffix("_total"): (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    measured = {
        family.name.removeprefix("gateway_tokens_"): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - OF_PROMETHEUS,
        )
        for family in scraped
        if family.name.startswith("gateway_tokens_")
    }
    assert told == measured
    of_processes = {
        sample.name for family in scraped for sample in family.samples if sample.name.startswith("process_")
    }
    assert of_processes == set(re.findall(r"`(process_\w+)`", page))


def test_no_two_panels_lie_on_one_another():
    cells = [
        (x, y)
        for panel in PANELS
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
