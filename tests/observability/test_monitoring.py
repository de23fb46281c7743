"""What is shipped for Prometheus and Grafana: rules that Prometheus takes, and nothing in them that is not measured."""

import asyncio
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import asyncpg
import httpx
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from graphql_api.auth import mint
from graphql_api.domain.caller import ADMIN_SCOPE
from tests.conftest import AUTH_SECRET

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/monitoring/alerts.yaml"
ALERTS = {rule["alert"]: rule for group in YAML(typ="safe").load(RULES)["groups"] for rule in group["rules"]}
DASHBOARD = json.loads((ROOT / "deploy/monitoring/dashboard.json").read_text())
PANELS = DASHBOARD["panels"]
TARGETS = [target for panel in PANELS for target in panel.get("targets", [])]
OF_PROMETHEUS = {"instance", "le", "job", "namespace"}

JOB = 'namespace="shop",job="monitoring/gateway-tokens"'
REQUESTS = "gateway_tokens_request_duration_seconds_count"
BUCKETS = "gateway_tokens_request_duration_seconds_bucket"


def of(name, labels="", values="0x400", job=JOB):
    return f"{name}{{{job}{',' if labels else ''}{labels}}}", values


def requests(values, outcome="ok", kind="query", job=JOB):
    return of(REQUESTS, f'outcome="{outcome}",kind="{kind}"', values, job)


BUSY, IDLE = requests("0+600x400"), requests("0+1x400")  # ten a second, and one a minute
WELL = [
    BUSY,
    of("gateway_tokens_build_info", 'version="1",instance="a"', "1x400"),
    of("up", 'instance="a"', "1x400"),
    of("process_start_time_seconds", 'instance="a"', "1000x400"),
    of("gateway_tokens_database_away", 'instance="a"', "0x400"),
    of("gateway_tokens_database_waiting", 'instance="a"', "0x400"),
    of("gateway_tokens_replica_read_from", 'replica="r"', "2x400"),
    of("gateway_tokens_webhooks_total", 'sender="s",status="200"', "0+5x400"),
]
OTHER_JOB = 'namespace="else",job="another"'


def latency(*counts):
    return [of(BUCKETS, f'le="{bound}"', f"0+{n}x400") for bound, n in zip(("0.5", "1", "+Inf"), counts, strict=True)]


def waiting_now_and_then():
    return of("gateway_tokens_database_waiting", 'instance="a"', "3 0x9 " * 40)


# By alert: series that make it fire, and some that are near and must not, a minute a step; both beside what is well.
TRIED = {
    "Absent": ([of(REQUESTS, values="_x400")], WELL),
    "TargetDown": (
        [of("up", 'instance="a"', "1x100 0x300")],
        [of("up", 'instance="b"', "1x358 0 1x41"), of("up", 'instance="a"', "0x400", OTHER_JOB)],
    ),
    "Restarting": (
        [of("process_start_time_seconds", 'instance="b"', "1000x340 2000x6 3000x6 4000x6 5000x42")],
        [of("process_start_time_seconds", 'instance="b"', "1000x340 2000x60")],
    ),
    "DatabaseUnreachable": (
        [of("gateway_tokens_database_away", 'instance="b"', "1x400")],
        [of("gateway_tokens_database_away", 'instance="b"', "0x359 1 0x40")],
    ),
    "ErrorBudgetBurnFast": (
        [requests("0+12x400", "TIMEOUT")],
        # Half a percent; all of an idle job's; all of the last three minutes' and none before; callers' mistakes.
        [
            requests("0+3x400", "TIMEOUT"),
            requests("0+1x400", "INTERNAL", job=OTHER_JOB),
            requests("0+300x400", "FORBIDDEN"),
            requests("0x358 0+6x42", "UNAVAILABLE"),
        ],
    ),
    "ErrorBudgetBurnSlow": (
        [requests("0+5x400", "UNAVAILABLE")],
        [requests("0+2x400", "UNAVAILABLE"), requests("0+1x400", "INTERNAL", job=OTHER_JOB)],
    ),
    "InternalErrors": ([requests("_x350 1x50", "INTERNAL")], [requests("3x400", "INTERNAL")]),
    "HighLatency": (
        latency(570, 600, 600),
        [*latency(599, 600, 600), *[(name.replace(JOB, OTHER_JOB), "0+1x400") for name, _ in latency(0, 1, 1)]],
    ),
    "Overloaded": (
        [of("gateway_tokens_limits_total", 'limit="MAX_CONCURRENT_REQUESTS",instance="a"', "0+60x400")],
        [of("gateway_tokens_limits_total", 'limit="MAX_CONCURRENT_REQUESTS",instance="a"', "0x200 5x200")],
    ),
    "ConnectionPoolExhausted": (
        [of("gateway_tokens_database_waiting", 'instance="b"', "3x400")],
        [
            (waiting_now_and_then()[0].replace('"a"', '"b"'), waiting_now_and_then()[1]),
            of("gateway_tokens_database_waiting", 'instance="c"', "1x400"),  # for the database to come back
            of("gateway_tokens_database_away", 'instance="c"', "1x400"),
        ],
    ),
    "ReplicaUnused": (
        [of("gateway_tokens_replica_read_from", 'replica="q"', "0x400")],
        [of("gateway_tokens_replica_read_from", 'replica="q"', "1x356 0x3 1x41")],
    ),
    "EventFeedDelayed": (
        [of("gateway_tokens_event_feed_lag_seconds", 'instance="a"', "400x400")],
        [of("gateway_tokens_event_feed_lag_seconds", 'instance="a"', "20x357 400x2 20x41")],
    ),
    "DeliveriesBehind": (
        [of("gateway_tokens_event_delivery_lag_seconds", 'endpoint="billing"', "1000x400")],
        [
            of("gateway_tokens_event_delivery_lag_seconds", 'endpoint="billing"', "600x400"),
            of("gateway_tokens_event_delivery_lag_seconds", 'endpoint="data"', "0x357 1000x2 0x41"),
        ],
    ),
    "AccessTokensRejected": (
        [requests("0+200x400", "UNAUTHENTICATED")],
        [requests("0+60x400", "UNAUTHENTICATED"), requests("0+2x400", "UNAUTHENTICATED", job=OTHER_JOB)],
    ),
    "LimitsExceeded": (
        [of("gateway_tokens_limits_total", 'limit="MAX_DEPTH"', "0+10x400")],
        [of("gateway_tokens_limits_total", 'limit="MAX_DEPTH"', "0+1x400")],
    ),
    "UserErrors": (
        [
            requests("0+60x400", kind="mutation"),
            of("gateway_tokens_user_errors_total", 'mutation="m",code="STALE"', "0+30x400"),
        ],
        [
            requests("0+60x400", kind="mutation"),
            of("gateway_tokens_user_errors_total", 'mutation="m",code="STALE"', "0+5x400"),
            requests("0+1x400", kind="mutation", job=OTHER_JOB),
            of("gateway_tokens_user_errors_total", 'mutation="m",code="STALE"', "0+1x400", OTHER_JOB),
        ],
    ),
    "CardNumbers": (
        [of("gateway_tokens_user_errors_total", 'mutation="m",code="CARD_NUMBER"', "_x340 1x60")],
        [of("gateway_tokens_user_errors_total", 'mutation="m",code="STALE"', "0+1x400")],
    ),
    "WebhooksFailing": (
        [of("gateway_tokens_webhooks_total", 'sender="s",status="400"', "0+1x400")],
        [of("gateway_tokens_webhooks_total", 'sender="s",status="400"', "0x340 1x60")],
    ),
    "ChecksStopped": (
        [of("gateway_tokens_check_finished_timestamp_seconds", 'gateway="STRIPE"', "-200000x400")],
        # One pod has read an older time than the other.
        [
            of("gateway_tokens_check_finished_timestamp_seconds", 'gateway="STRIPE",instance="a"', "-200000x400"),
            of("gateway_tokens_check_finished_timestamp_seconds", 'gateway="STRIPE",instance="b"', "-100000x400"),
        ],
    ),
    "NotCompiled": (
        [of("gateway_tokens_engine_fallbacks_total", 'reason="too deep"', "0+100x400")],
        [
            of("gateway_tokens_engine_fallbacks_total", 'reason="too deep"', "0+30x400"),
            requests("0+1x400", job=OTHER_JOB),
            of("gateway_tokens_engine_fallbacks_total", 'reason="too deep"', "0+1x400", OTHER_JOB),
        ],
    ),
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


def evaluated(promtool, folder, series, rules=(), **tests):
    """Promtool's word on what Prometheus makes of these series."""
    given = [{"series": name, "values": values} for name, values in series]
    test = {"interval": "1m", "input_series": given, **tests}
    file = folder / "tests.yaml"
    file.write_text(
        json.dumps({"rule_files": [str(rule) for rule in rules], "evaluation_interval": "1m", "tests": [test]})
    )
    return promtool("test", "rules", str(file))


def test_prometheus_takes_the_rules(promtool):
    checked = promtool("check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stderr
    assert f"{len(ALERTS)} rules found" in checked.stdout


def test_every_alert_is_tried():
    assert ALERTS.keys() == {f"GatewayTokens{name}" for name in TRIED}


@pytest.mark.parametrize("name", TRIED)
def test_an_alert_fires_where_it_should_and_is_quiet_where_all_is_well(promtool, tmp_path, name):
    alert = f"GatewayTokens{name}"
    alone = tmp_path / "alert.yaml"  # six hours of every alert take promtool seconds
    alone.write_text(json.dumps({"groups": [{"name": name, "rules": [ALERTS[alert]]}]}))

    def fires(series):
        # Some alerts look for what is new: that is looked for a moment after it came.
        expected = {"eval_time": "6h", "alertname": alert, "exp_alerts": []}
        done = evaluated(promtool, tmp_path, series, [alone], alert_rule_test=[expected])
        assert done.returncode == 0 or f"alertname: {alert}" in done.stdout + done.stderr, done.stderr
        return done.returncode != 0

    firing, near = TRIED[name]
    well = [] if name == "Absent" else WELL
    assert fires([*well, *firing])
    assert not fires([*WELL, *(each for each in near if each not in WELL)])


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_it_is_about_and_where_there_is_more(alert):
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert "- " not in rule["annotations"]["description"], "a word is split where the text is folded"
    page, _, anchor = rule["annotations"]["runbook_url"].removeprefix("https://docs.example/").partition("#")
    headings = re.findall(r"^#+ (.*)", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    assert anchor in {heading.strip("`").lower() for heading in headings}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_tells_jobs_apart(alert):
    expression = ALERTS[alert]["expr"]
    aggregated = re.findall(r"\b(?:sum|min|max)\b(?: by \((.*?)\))?", expression)
    assert all({"namespace", "job"} <= {label.strip() for label in labels.split(",")} for labels in aggregated)


@pytest.mark.parametrize("expression", [each["expr"] for each in TARGETS])
def test_a_panel_shows_the_chosen_installation_only(expression):
    chosen = re.findall(r"\b(?:gateway_tokens|process)_\w+(?:{(.*?)})?", expression.split(" and on ")[0])
    assert all('namespace=~"$namespace", job=~"$job"' in labels for labels in chosen)


def test_the_operator_gets_the_same_alerts():
    resource = YAML(typ="safe").load(ROOT / "deploy/kubernetes/monitoring/alerts.yaml")
    assert resource["spec"] == YAML(typ="safe").load(RULES), "`make alerts` writes them anew"


FIELDS = (
    "id userId gateway gatewayCustomerId isActive createdAt updatedAt version description metadata deactivatedAt"
    " lastVerifiedAt deactivationReason"
)
USER = '{__typename: "User", id: "u"}'


@pytest.fixture(scope="module")
def scraped(serving, database_url):
    """What a service with two workers tells after it was asked for all sorts of things."""
    service = serving("--workers", "2", DATABASE_REPLICA_URL=database_url, ADYEN_WEBHOOK_HMAC_KEY="00" * 32)

    async def work():
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "insert into gateway_checks (gateway, finished_at, oldest_at, verified) values ('STRIPE', now(), now(), 5)"
            " on conflict do nothing"
        )
        await connection.execute(
            "insert into event_endpoints (name, position) values ('billing', 0) on conflict do nothing"
        )
        await connection.close()
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
    names = set(re.findall(r"(?:gateway_tokens|process)_\w+", expression)) - {"process"}
    assert names or expression.startswith("up{")
    assert names <= labels.keys()
    known = OF_PROMETHEUS.union(*(labels[name] for name in names))
    matched = {label for part in re.findall(r"{(.*?)}", expression) for label in re.findall(r"(\w+)\s*[=!]", part)}
    grouped = {label.strip() for part in re.findall(r"\bby \((.*?)\)", expression) for label in part.split(",")}
    assert matched | grouped <= known


def unknown_to_grafana(given, understood, place=""):
    """The places of what Grafana's models of dashboards, panels and queries drop or change."""
    if isinstance(given, dict) and isinstance(understood, dict):
        return [
            at for key, each in given.items() for at in unknown_to_grafana(each, understood.get(key), f"{place}/{key}")
        ]
    if isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        pairs = enumerate(zip(given, understood, strict=True))
        return [at for number, (a, b) in pairs for at in unknown_to_grafana(a, b, f"{place}/{number}")]
    return [] if given == understood else [place]


def misunderstood(dashboard):
    register_default_plugins()
    understood = Dashboard.from_json(json.loads(json.dumps(dashboard)))
    return unknown_to_grafana(dashboard, json.loads(JSONEncoder().encode(understood)))


def test_grafana_knows_everything_in_the_dashboard():
    assert misunderstood(DASHBOARD) == []


def test_the_models_of_grafana_see_what_is_wrong():
    wrong = json.loads(json.dumps(DASHBOARD))
    wrong["refreshes"] = "30s"
    panel = next(each for each in wrong["panels"] if each["type"] == "timeseries")
    panel["fieldConfigs"], panel["options"]["legends"], panel["targets"][0]["expression"] = {"a": 1}, {"a": 1}, "up"
    place = f"/panels/{wrong['panels'].index(panel)}"
    expected = {"/refreshes", f"{place}/fieldConfigs", f"{place}/options/legends", f"{place}/targets/0/expression"}
    assert {*misunderstood(wrong)} == expected


def test_a_panel_shows_something(promtool, tmp_path, scraped):
    series = []
    for family in scraped:
        for sample in family.samples:
            labels = ",".join(f"{name}={json.dumps(value)}" for name, value in sample.labels.items())
            series.append((f'{sample.name}{{{labels},instance="a"}}'.replace("{,", "{"), f"{sample.value}+1x60"))
    tests = []
    for target in TARGETS:
        expression = re.sub(r"\$(instance|job|namespace)", ".*", target["expr"].replace("$__rate_interval", "5m"))
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
            {label for sample in family.samples for label in sample.labels} - OF_PROMETHEUS
            if family.samples
            else told.get(family.name.removeprefix("gateway_tokens_"), ("", set()))[1],  # of what did not happen here
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
