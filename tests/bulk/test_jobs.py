"""Imports that are stopped, killed, or not alone: what is stored is what the file says, as far as it went."""

import asyncio
import fcntl
import os
import pty
import re
import signal
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from graphql_api.cli import process as commands
from graphql_api.storage import retention
from graphql_api.storage.partitioning import Partitioning
from tests.bulk.records import many, token
from tests.until import until

COUNT = "select count(*) from customer_gateway_tokens"


async def some(table):
    """Wait until an import has stored its first tokens."""

    async def are_stored():
        return (await table(COUNT))[0][0]

    await until(are_stored, "the import has stored its first tokens")


async def test_an_import_that_is_killed_is_completed_by_the_same_command(
    command, process, write, everything, table, empty
):
    file = write("t.csv", *many(20_000), token("u1", customer="cus_0"), token("v", customer="cus_0"))
    await command("import", file)
    whole = await everything()
    await empty()
    running = await process("import", file)
    await some(table)
    running.kill()
    await running.wait()
    [(stored,)] = await table(COUNT)
    assert 0 < stored < 20_000
    again = await command("import", file)
    assert again.err.startswith(f"import t.csv: {20_000 - stored:,} created, {stored:,} unchanged, 2 rejected")
    assert await everything() == whole


async def test_ctrl_c_says_where_an_import_stopped(process, write, table):
    running = await process("import", write("t.jsonl", *many(100_000)))
    await some(table)
    running.send_signal(signal.SIGINT)
    _, err = await running.communicate()
    assert running.returncode == 130
    said = re.search(
        r"^gateway-tokens: import t\.jsonl stopped after line (\S+) \((\S+) created\):"
        r" run the same command again to continue\n\Z",
        err.decode(),
        re.MULTILINE,
    )
    [(stored,)] = await table(COUNT)
    assert [int(number.replace(",", "")) for number in said.groups()] == [stored, stored]


@pytest.mark.parametrize("presses", [1, 100])
@pytest.mark.parametrize(
    ("options", "lock", "told"),
    [
        (
            [],
            "share",
            "import t.jsonl stopped; its first lines may have taken effect: run the same command again to continue",
        ),
        (["--check"], "access exclusive", "check of import t.jsonl stopped: nothing was changed"),
    ],
)
async def test_ctrl_c_ends_an_import_that_waits_and_says_that_nothing_was_changed_only_by_a_check(
    process, write, connection, table, options, lock, told, presses
):
    """The second press, or some seconds after the first, end the wait for a chunk, of whose commit nothing is known."""
    async with connection.transaction():
        await connection.execute(f"lock table customer_gateway_tokens in {lock} mode")
        running = await process("import", write("t.jsonl", *many(10)), *options)

        async def waits():
            return (
                await table(
                    "select count(*) from pg_locks where not granted and database = "
                    "(select oid from pg_database where datname = current_database())"
                )
            )[0][0]

        await until(waits, "the import waits for the lock")
        ended = asyncio.ensure_future(running.communicate())
        while not ended.done():
            if presses:
                running.send_signal(signal.SIGINT)
                presses -= 1
            await asyncio.wait([ended], timeout=0.2)
        _, err = await ended
    assert running.returncode == 130
    assert err.decode().endswith(f"gateway-tokens: {told}\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--yes"], "after deleting at least 3 history entries: run the same command again to continue"),
        (["--dry-run"], "before it deleted anything"),
    ],
)
async def test_a_prune_that_is_interrupted_says_what_it_deleted(command, monkeypatch, options, told):
    async def delete_and_be_interrupted(*_, **__):
        yield 3
        raise asyncio.CancelledError

    monkeypatch.setattr(retention, "prune", delete_and_be_interrupted)
    outcome = await command("prune", "--history-older-than", "9d", *options)
    assert outcome.err == f"gateway-tokens: prune stopped {told}\n"


async def test_a_partitioning_that_is_interrupted_says_how_to_go_on(command, monkeypatch):
    async def be_interrupted(*_):
        raise asyncio.CancelledError

    monkeypatch.setattr(Partitioning, "run", be_interrupted)
    outcome = await command("partition", "--parts", "4", "--table", "gateway_customers")
    assert outcome.err.splitlines()[-1] == (
        "gateway-tokens: gateway_customers: a run that made 4 partitions stopped: continue with --parts 4, or undo it"
        " with --cancel."
    )


LOCKS_OF_WRITERS_THAT_WAIT = """
select count(*) from pg_locks held where locktype = 'advisory' and exists (
  select from pg_locks where not granted and pid = held.pid and relation = 'customer_gateway_tokens'::regclass
)
"""
AT_STRIPE = ["--gateway", "STRIPE"]
LISTED = [*AT_STRIPE, "--apply", "--max-missing", "100", "--exported-at"]


@pytest.mark.parametrize(
    ("name", "records", "options"),
    [
        ("import", [token(f"v{number}", customer=f"new_{number}") for number in range(2000)], []),
        (
            "import",
            [
                token(
                    f"v{number}",
                    customer=f"new_{number}",
                    formerGatewayCustomerIds=[f"o{n}_{number}" for n in range(200)],
                )
                for number in range(20)
            ],
            [],
        ),
        ("import", many(2000), []),
        ("remap", [{"old": f"cus_{number}", "new": f"new_{number}"} for number in range(2000)], AT_STRIPE),
        ("reconcile", [{"id": "cus_0"}], LISTED),
    ],
    ids=["import", "import of former ids", "import of the same", "remap", "reconcile"],
)
async def test_a_bulk_command_never_holds_the_locks_of_half_of_the_users(
    command, process, write, connection, table, name, records, options
):
    await command("import", write("t.csv", *many(2000)))
    async with connection.transaction():
        await connection.execute("lock table customer_gateway_tokens in exclusive mode")
        at = [datetime.now(UTC).isoformat()] if options is LISTED else []
        running = await process(name, write("changes.jsonl", *records), *options, *at)

        async def held():
            return (await table(LOCKS_OF_WRITERS_THAT_WAIT))[0][0]

        locks = await until(held, "it waits for the lock on the table")
    await running.communicate()
    assert running.returncode == (name == "reconcile")  # as it found differences
    assert locks < 1024 / 2


@pytest.mark.parametrize("words", [b"insert into customer_gateway_tokens", b"commit"])
async def test_an_import_notices_a_connection_that_was_dropped_silently(
    command, write, empty_database, by_tcp, monkeypatch, table, words
):
    """Long before its statements end by themselves, it asks whether a backend works on them."""
    proxy, way = by_tcp
    monkeypatch.setenv("DATABASE_URL", way(empty_database))
    lost = iter(["request"])
    proxy.silences = lambda chunk: next(lost, None) if words in chunk else None
    began = asyncio.get_running_loop().time()
    ended = await command("import", write("t.jsonl", *many(10)))
    assert proxy.lost == 1
    assert (ended.status, await table(COUNT)) == (0, [(10,)]), ended.err
    assert asyncio.get_running_loop().time() - began < commands.BULK_TIMEOUT_SECONDS


async def test_imports_and_saves_at_once_store_each_token_once(process, write, graph, table):
    file = write("t.csv", *many(6000))
    reversed_file = write("r.csv", *reversed(many(6000)))
    imports = [await process("import", name) for name in (file, reversed_file)]
    await some(table)
    for number in range(5999, 5900, -3):
        await graph.save(f"u{number}", "STRIPE", f"cus_{number}")
    said = [(await running.communicate())[1].decode() for running in imports]
    assert [running.returncode for running in imports] == [0, 0], said
    counts = "select count(*), max(version) from customer_gateway_tokens"
    assert await table(counts) == [(6000, 1)]
    assert await table("select count(*), count(distinct user_id) from customer_gateway_token_events") == [(6000, 6000)]
    assert await table("select count(*) from gateway_customers") == [(6000,)]


@pytest.mark.parametrize("verb", ["import", "remap"])
async def test_two_runs_do_not_write_their_rejected_lines_to_one_file(command, folder, graph, verb):
    await graph.save("u1", "STRIPE", "cus_1")
    (folder / "t.csv").write_text("userId,gateway,gatewayCustomerId\n" if verb == "import" else "old,new\n,\n")
    options = ["--gateway", "STRIPE"]
    with (folder / "t.csv.rejects.csv").open("w") as other_run:
        other_run.write("what the other run has rejected so far\n")
        other_run.flush()
        fcntl.flock(other_run, fcntl.LOCK_EX)
        outcome = await command(verb, "t.csv", *options)
        assert outcome.status == 2
        assert outcome.err == (
            "gateway-tokens: another run is writing its rejected lines to t.csv.rejects.csv: wait for it, or use "
            "--rejects with another name.\n"
        )
        assert (folder / "t.csv.rejects.csv").read_text() == "what the other run has rejected so far\n"
        await command(verb, "t.csv", *options, "--rejects", "more.csv")
    await command(verb, "t.csv", *options)
    rejected = folder / "t.csv.rejects.csv"
    assert rejected.read_text() == "what the other run has rejected so far\n"  # there is no line to reject


async def test_a_run_holds_the_file_of_its_rejected_lines(process, command, write, table):
    running = await process("import", write("t.csv", *many(50_000)))
    await some(table)
    outcome = await command("import", write("o.csv", token("u1")), "--rejects", "t.csv.rejects.csv")
    running.kill()
    await running.wait()
    assert (outcome.status, "another run is writing" in outcome.err) == (2, True)


async def test_an_erasure_during_an_import_does_not_bring_the_user_back(process, write, graph, table):
    users = [f"u{number}" for number in range(0, 20_000, 500)]
    running = await process("import", write("t.csv", *many(20_000)))
    await some(table)
    for user in users:
        await graph.erase(user)
    await running.communicate()
    erased = "select count(*) from {} where user_id = any($1)"
    for name in ("customer_gateway_tokens", "gateway_customers", "customer_gateway_token_events"):
        assert await table(erased.format(name), users) == [(0,)]


@pytest.mark.parametrize(("no_color", "is_colored"), [("", True), ("1", False)])
async def test_a_terminal_shows_a_bar(process, write, monkeypatch, no_color, is_colored):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    terminal, end = pty.openpty()
    os.set_blocking(terminal, False)
    file = write("t.csv", *many(6000))
    shown = bytearray()
    asyncio.get_running_loop().add_reader(terminal, lambda: shown.extend(os.read(terminal, 4096)))  # it holds no more
    for arguments in (["import", file], ["export", "all.csv"]):
        running = await process(*arguments, stderr=end)
        assert await running.wait() == 0
    asyncio.get_running_loop().remove_reader(terminal)
    with suppress(BlockingIOError):
        while True:
            shown += os.read(terminal, 4096)
    assert "━" in shown.decode()
    assert bool(re.search(r"\x1b\[(\d+;)*(3[0-8]|9[0-7])[;m]", shown.decode())) is is_colored
    assert "import t.csv: 6,000 created" in shown.decode()
