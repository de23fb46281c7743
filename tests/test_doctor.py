"""What `gateway-tokens doctor` finds, each time with one thing that is wrong."""

import asyncio
import json
import secrets
import socket
import ssl
import sys
from unittest.mock import AsyncMock
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
import pytest
from pydantic import SecretStr

from graphql_api import doctor
from graphql_api.cli.main import main
from graphql_api.embedded import embedded_postgres
from graphql_api.settings import Settings
from tests.faults.postgres import servers
from tests.gateway_apis import standin
from tests.pooler import pgbouncer

SECRET = "a secret of the tests, which is no secret"


async def found(**settings):
    given = {"auth_secret": SECRET, "auth_issuer": "i", "auth_audience": "a", **settings}
    return {each.check: each async for each in doctor.findings(Settings(**given))}


@pytest.fixture
async def own(new_database, migrated_database):
    """A migrated database that a test may break, and a connection to it."""
    url = await new_database(migrated_database)
    connection = await asyncpg.connect(url)
    yield url, connection
    await connection.close()


async def test_where_all_is_well_every_line_is_ok(database_url):
    lines = await found(database_url=database_url)
    assert [*lines] == ["settings", "access", "keys", "database", "grants", "migrations", "feed", "indexes", "clock"]
    assert all(line.is_well for line in lines.values()), lines


async def test_a_transaction_that_holds_the_feed_up_and_endpoints_that_fail_are_named(own):
    url, connection = own
    await connection.execute("insert into event_endpoints (name, position, last_error) values ('a', 0, 'answered 500')")
    await connection.execute(
        "insert into event_endpoints (name, position, last_error, disabled_at) values ('b', 0, 'answered 410', now())"
    )
    await connection.execute("insert into event_endpoints (name, position) values ('c', 0), ('d', 1)")
    await connection.execute(
        "insert into event_endpoints (name, position, leased_until) values ('e', 0, now() + interval '20 s')"
    )
    await connection.execute(
        "insert into customer_gateway_token_events (token_id, version, user_id, gateway, gateway_customer_id,"
        " is_active, action, actor, at)"
        " select gen_random_uuid(), 1, 'u', 'STRIPE', 'c', true, 'CREATED', 'a', now() - age"
        " from unnest(array['2 minutes', '0']::interval[]) as age"
    )
    async with connection.transaction():
        await connection.execute("select pg_current_xact_id()")
        await asyncio.sleep(0.02)
        settings = Settings(auth_secret=SECRET, database_url=url)
        lines = [each async for each in doctor.findings(settings, max_open_seconds=0.01)]
    says = {each.says for each in lines if not each.is_well}
    assert "b is disabled, since it answered 410: fix it, then `deliver --resume b`" in says
    assert "a answered 500: fix it; entries are sent again" in says
    assert [text for text in says if "gets nothing" in text] == [
        "c gets nothing: run `gateway-tokens deliver`, or see why it does not deliver"
    ]
    assert any("is held up by process" in text and "a write transaction" in text for text in says)


async def test_ids_of_payment_methods_are_a_note_unless_a_form_is_asked_for(own):
    url, connection = own
    for number, (gateway, customer) in enumerate(
        [("STRIPE", "pm_1"), ("STRIPE", "tok_1"), ("A", "src_1"), ("A", "pmx")]
    ):
        await connection.execute(
            "insert into customer_gateway_tokens (id, user_id, gateway, gateway_customer_id)"
            " values (gen_random_uuid(), $1, $2, $3)",
            f"u{number}",
            gateway,
            customer,
        )
    note = (await found(database_url=url))["customers"]
    assert (note.is_well, note.is_note) == (True, True)
    assert ": 1 at A, 2 at STRIPE. Save the customer's id instead." in note.says
    assert ": 1 at A. " in (await found(database_url=url, customer_ids="STRIPE:cus_*"))["customers"].says
    assert "customers" not in await found(database_url=url, customer_ids="STRIPE:cus_*,A:*")


async def test_a_log_that_postgresql_hides_is_a_note(own):
    url, connection = own
    await connection.execute("alter function pg_catalog.pg_walfile_name rename to hidden")
    note = (await found(database_url=url))["outcomes"]
    assert (note.is_well, note.is_note) == (True, True)
    assert "(function pg_walfile_name(pg_lsn) does not exist)" in note.says


async def test_a_database_that_cannot_be_reached_is_one_line():
    lines = await found(database_url="postgresql://nobody@127.0.0.1:1/none")
    assert [*lines] == ["settings", "access", "keys", "database"]
    assert not lines["database"].is_well
    assert lines["database"].says.endswith("start PostgreSQL, or check the host and the port in DATABASE_URL")


UNKNOWN_CA = ssl.SSLCertVerificationError(1, "x")
UNKNOWN_CA.verify_message = "unable to get local issuer certificate"


@pytest.mark.parametrize(
    ("error", "reason", "mending"),
    [
        (asyncpg.InvalidPasswordError("password authentication failed"), "password", "the user and the password"),
        (asyncpg.InvalidCatalogNameError('database "x" does not exist'), "does not exist", "create that database"),
        (asyncpg.InsufficientPrivilegeError("permission denied for database x"), "denied", "grant connect"),
        (asyncpg.TooManyConnectionsError("too many clients"), "too many", "max_connections"),
        (asyncpg.TooManyConnectionsError('too many connections for role "x"'), "too many", "limit of the role"),
        (socket.gaierror(-2, "Name or service not known"), "its host name has no address", "the host"),
        (FileNotFoundError(2, ""), "no such file", "directory of its socket"),
        (UNKNOWN_CA, "its certificate is not valid", "set sslrootcert"),
        (
            asyncpg.exceptions.ClientConfigurationError('root certificate file "x" does not exist', hint="a\nb"),
            'root certificate file "x" does not exist',
            "set sslrootcert",
        ),
        (asyncpg.InsufficientPrivilegeError("permission denied for schema x"), "schema", "migrate` as the role"),
        (TimeoutError(), "it took too long", "firewalls"),
        (ConnectionError("rejected SSL upgrade"), "does not support TLS", "sslmode"),
        (asyncpg.PostgresError("something new"), "something new", "DATABASE_URL"),
    ],
)
async def test_each_reason_why_the_database_cannot_be_used_has_its_mending(monkeypatch, error, reason, mending):
    monkeypatch.setattr(asyncpg, "connect", AsyncMock(side_effect=error))
    line = (await found(database_url="postgresql://somebody@127.0.0.1/some"))["database"]
    assert not line.is_well
    told, _, to_do = line.says.partition("): ")
    assert "\n" not in line.says
    assert reason in told
    assert mending in to_do


async def test_a_standby_is_no_database_to_serve_from(tmp_path):
    with servers(tmp_path) as make:
        primary, standby = make(), make()
        primary.create()
        await primary.start()
        standby.follow(primary)
        await standby.start()
        line = (await found(database_url=standby.url))["database"]
        both = primary.url.replace("@", f"@127.0.0.1:{standby.port},")
        line_of_both = (await found(database_url=both))["database"]
    assert not line.is_well
    assert line.says.startswith(f"postgres on 127.0.0.1:{standby.port} cannot be used (it is read-only): set ")
    assert line_of_both.is_well


async def test_a_pooler_that_lends_connections_for_a_transaction_is_named_where_statements_are_prepared(
    own, tmp_path, straight
):
    with pgbouncer(tmp_path, straight(own[0])) as pooler:
        url = pooler.to(own[0])
        lines = await found(database_url=url, database_prepared_statements=True)
        lines_without = await found(database_url=url, database_prepared_statements=False)
    assert not lines["pooler"].is_well
    assert "DATABASE_PREPARED_STATEMENTS=false" in lines["pooler"].says
    assert "pooler" not in lines_without


async def test_a_pooler_that_keeps_connections_for_their_clients_is_none_to_be_told_of(own, tmp_path, straight):
    with pgbouncer(tmp_path, straight(own[0]), pool_mode="session") as pooler:
        lines = await found(database_url=pooler.to(own[0]), database_prepared_statements=True)
    assert lines["database"].is_well
    assert "pooler" not in lines


async def test_an_empty_database_is_to_be_migrated(new_database):
    lines = await found(database_url=await new_database())
    line = lines["migrations"]
    assert "grants" not in lines  # which are complete only after a migration
    assert lines["feed"].says == "not checked, because the database is not migrated"
    assert not line.is_well
    assert "gateway-tokens migrate" in line.says


@pytest.mark.parametrize("exists", [False, True])
async def test_a_search_path_without_the_tables_is_wrong_and_no_grant(own, exists):
    url, connection = own
    if exists:
        await connection.execute("create schema other")
    parts = urlsplit(url)
    query = urlencode([*parse_qsl(parts.query), ("search_path", "other")])
    lines = await found(database_url=parts._replace(query=query).geturl())
    assert "grants" not in lines
    says = "the tables are in the schema public, but search_path is other: run `alter role … set search_path = public`"
    assert lines["database"].says.startswith(says)
    assert [lines[check].says for check in ("migrations", "feed")] == ["not checked, because search_path is wrong"] * 2


async def test_a_database_that_no_url_names_is_named(server_url):
    line = (await found(database_url=urlsplit(server_url)._replace(path="").geturl()))["database"]
    assert (line.is_note, line.says.startswith("DATABASE_URL names no database, so it is postgres: ")) == (True, True)


async def test_a_database_that_does_not_keep_text_as_unicode_is_wrong(administrator, straight):
    name = f"test_{secrets.token_hex(6)}"
    await administrator.execute(f"create database {name} template template0 encoding sql_ascii locale 'C'")
    try:
        line = (await found(database_url=straight(f"/{name}")))["database"]
    finally:
        await administrator.execute(f"drop database {name}")
    assert (line.is_well, "SQL_ASCII" in line.says) == (False, True)


async def test_an_index_that_was_never_finished_is_named_with_its_mending(own):
    url, connection = own
    name = await connection.fetchval("select indexname from pg_indexes where schemaname = 'public' limit 1")
    await connection.execute("update pg_index set indisvalid = false where indexrelid = $1::text::regclass", name)
    line = (await found(database_url=url))["indexes"]
    assert not line.is_well
    assert f"reindex index concurrently {name}" in line.says


async def test_a_clock_that_is_off_is_said(database_url, monkeypatch):
    now = doctor.time
    monkeypatch.setattr(doctor, "time", lambda: now() + 90)
    line = (await found(database_url=database_url))["clock"]
    assert not line.is_well
    assert "90." in line.says or "89." in line.says


async def test_a_version_that_is_not_tested_is_wrong(database_url):
    settings = Settings(database_url=database_url, auth_secret=SECRET)
    lines = {each.check: each async for each in doctor.findings(settings, tested=range(99, 101))}
    assert (lines["database"].is_well, "use one of 99 to 100" in lines["database"].says) == (False, True)


async def test_a_weak_setting_is_wrong(database_url):
    line = (await found(database_url=database_url, router_secret="a"))["settings"]
    assert (line.is_well, line.says.partition(":")[0]) == (False, "ROUTER_SECRET")
    line = (await found(database_url=database_url, metrics_port=8000))["settings"]
    assert (line.is_note, line.says.partition(":")[0]) == (True, "METRICS_PORT")
    line = (await found(database_url=database_url, auth_issuer=None))["settings"]
    assert (line.is_note, line.says.partition(":")[0]) == (True, "AUTH_SECRET")
    assert not (await found(database_url=database_url))["settings"].is_note
    line = (await found(database_url=database_url, cors_origins="*"))["settings"]
    assert (line.is_note, line.says.partition(":")[0]) == (True, "CORS_ORIGINS")


@pytest.mark.parametrize("text", ["", "{}", '{"keys": []}'])
async def test_a_file_without_keys_is_wrong(database_url, tmp_path, text):
    (keys := tmp_path / "keys.json").write_text(text)
    lines = await found(database_url=database_url, auth_secret=None, auth_jwks_file=keys)
    assert (lines["keys"].is_well, lines["keys"].says.partition(":")[0]) == (False, "AUTH_JWKS_FILE")


async def test_a_database_that_logs_rows_is_noted(own):
    url, connection = own
    await connection.execute(
        f"alter database {await connection.fetchval('select current_database()')} set log_error_verbosity = verbose"
    )
    line = (await found(database_url=url))["log"]
    assert (line.is_well, line.is_note, "log_error_verbosity = terse" in line.says) == (True, True, True)


async def test_without_a_database_it_creates_none(tmp_path):
    lines = await found(database_url=None, data_dir=tmp_path / "data")
    assert lines["database"].is_note
    assert str(tmp_path / "data") in lines["database"].says
    assert "migrations" not in lines
    assert not (tmp_path / "data").exists()


async def test_it_looks_at_the_embedded_database_that_runs(tmp_path):
    with embedded_postgres(tmp_path, {"fsync": "off"}):
        lines = await found(database_url=None, data_dir=tmp_path)
    assert lines["database"].is_well
    assert not lines["migrations"].is_well


async def test_a_key_server_that_is_down_is_wrong(database_url):
    lines = await found(database_url=database_url, auth_secret=None, auth_jwks_url="http://127.0.0.1:1/keys")
    assert not lines["keys"].is_well
    assert lines["keys"].says.startswith("AUTH_JWKS_URL gave no keys (connection refused)")


async def test_a_setting_that_only_its_part_can_check_is_wrong(database_url, tmp_path):
    (documents := tmp_path / "documents.json").write_text("nothing")
    line = (await found(database_url=database_url, trusted_documents=documents))["settings"]
    assert not line.is_well
    assert line.says.startswith("TRUSTED_DOCUMENTS: the file must be")
    assert line.says.endswith("not valid JSON: Expecting value in line 1, column 1")


async def test_a_trusted_document_that_cannot_run_is_named_with_its_line(database_url, tmp_path):
    token = 'customerGatewayToken(id: "x")'
    documents = {
        "runs": "query A { __typename } query B { __typename }",
        "asks": f"{{\n  {token} {{ nope }} }}",
        "is too deep": f"{{ {token} {{ user {{ gatewayTokens {{ id }} }} }} }}",
    }
    (path := tmp_path / "documents.json").write_text(json.dumps(documents))
    settings = Settings(database_url=database_url, auth_secret=SECRET, trusted_documents=path, max_depth=3)
    told = [each async for each in doctor.findings(settings) if "TRUSTED" in each.says]
    assert [each.is_well for each in told] == [False, False]
    wrong = "Cannot query field 'nope' on type 'CustomerGatewayToken'."
    assert told[0].says == f"TRUSTED_DOCUMENTS: the document 'asks', line 2, cannot run: {wrong}"
    assert told[1].says.startswith(
        "TRUSTED_DOCUMENTS: the document 'is too deep' cannot run: The request is too complex"
    )


def test_every_setting_that_is_wrong_is_named(monkeypatch, capsys, tmp_path):
    (documents := tmp_path / "documents.json").write_text("nothing")
    wrong = {"DATABASE_URL": "mysql://x", "AUTH_MODE": "maybe", "MAX_DEPTH": "deep", "LOGLEVEL": "debug"}
    wrong |= {"ROUTER_SECRET": "a", "TRUSTED_DOCUMENTS": str(documents), "STRIPE_WEBHOOK_SECRET": "sk_test_51Habc"}
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["gateway-tokens", "doctor"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    told = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    names = "DATABASE_URL", "AUTH_MODE", "MAX_DEPTH", "TRUSTED_DOCUMENTS:", "ROUTER_SECRET:", "LOGLEVEL"
    names = *names, "STRIPE_WEBHOOK_SECRET"
    assert sorted(told[:7]) == sorted(["WRONG", "settings", name] for name in names)
    assert {each[1] for each in told[7:]} == {"access"}

    monkeypatch.setattr(sys, "argv", ["gateway-tokens", "serve"])
    with pytest.raises(SystemExit):
        main()
    told = {line.split()[1] for line in capsys.readouterr().err.splitlines()}
    assert {"DATABASE_URL", "AUTH_MODE", "MAX_DEPTH", "STRIPE_WEBHOOK_SECRET"} <= told


async def test_a_service_without_keys_is_wrong_unless_it_was_said_so(database_url):
    assert not (await found(database_url=database_url, auth_secret=None))["access"].is_well
    assert (await found(database_url=database_url, auth_secret=None, auth_mode="disabled"))["access"].is_well


@pytest.mark.parametrize(
    ("replica", "says"), [("", "is not a standby"), ("postgresql://nobody@127.0.0.1:1/none", "DATABASE_REPLICA_URL")]
)
async def test_a_replica_is_checked_where_there_is_one(database_url, replica, says):
    line = (await found(database_url=database_url, database_replica_url=replica or database_url))["replica"]
    assert (line.is_well, says in line.says) == (False, True)


@pytest.mark.parametrize(("secret", "status"), [(SECRET, 0), ("", 1)])
async def test_the_exit_status_is_one_where_a_line_is_wrong(database_url, monkeypatch, capsys, secret, status):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("AUTH_SECRET", secret)
    monkeypatch.setattr(sys, "argv", ["gateway-tokens", "doctor"])
    with pytest.raises(SystemExit) as end:
        await asyncio.to_thread(main)
    assert (end.value.code or 0) == status
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines].count("WRONG") == status


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ([], None),
        (
            [None, 403],
            "STRIPE: Stripe refuses the key (status 403). It needs Customers: Read (Write to purge) and Events",
        ),
        ([401], "STRIPE: Stripe refuses the key (status 401)."),
        ([500] * 3, "STRIPE: Stripe cannot be asked: status 500. Check the key and the network and STRIPE_API_BASE"),
        (["html"] * 3, "STRIPE: Stripe cannot be asked: an unexpected answer with status 200."),
    ],
)
async def test_each_gateways_key_is_tried_without_changing_anything(database_url, faults, says):
    stripe = standin.Stripe()
    stripe.faults.extend(faults)
    with standin.serving(stripe) as url:
        settings = {"stripe_api_key": (SecretStr(f"STRIPE:{standin.KEY}"),), "stripe_api_base": url}
        line = (await found(database_url=database_url, **settings))["gateway"]
    assert {method for method, _ in stripe.asked} == {"GET"}
    assert (line.is_well, line.says.startswith(says or "STRIPE: Stripe accepts the key")) == (says is None, True), line
    assert standin.KEY not in line.says


async def test_a_gateway_that_cannot_be_reached_says_nothing_of_its_key(database_url):
    settings = {"stripe_api_key": (SecretStr(f"STRIPE:{standin.KEY}"),), "stripe_api_base": "http://127.0.0.1:1"}
    line = (await found(database_url=database_url, **settings))["gateway"]
    says = "STRIPE: Stripe cannot be asked: no answer (connection refused)"
    assert (line.is_well, line.says) == (False, f"{says}. Check the network and STRIPE_API_BASE")


async def test_settings_of_gateways_that_contradict_each_other_are_wrong(database_url):
    keys = {"stripe_api_key": (SecretStr("STRIPE:rk_live_abcdef"),), "stripe_accounts": ("STRIPE:a", "STRIPE:b")}
    lines = [each async for each in doctor.findings(Settings(database_url=database_url, auth_secret=SECRET, **keys))]
    assert any("STRIPE has 2 accounts" in line.says for line in lines if not line.is_well)
    assert not any(line.check == "gateway" for line in lines)
