"""Every mutation answers what it did, whatever was lost on the way: answers are compared with a model and tables."""

import asyncio
import random
import secrets
from collections import Counter
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import asyncpg
import pytest

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.domain.errors import UnavailableError
from graphql_api.settings import Settings
from graphql_api.storage import transaction as transactions
from graphql_api.storage.migrate import upgrade
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.statements import NOW
from graphql_api.storage.transaction import CommitStatus
from tests.asgi import Client, opened
from tests.faults.conftest import LONG
from tests.faults.proxy import Proxy
from tests.graph import MUTATIONS
from tests.pooler import pgbouncer
from tests.until import until

SECRET = "a secret of the tests, which is no secret"
CALLERS = 8
MUTATIONS_EACH = 400 if LONG else 20
COMMITS_LOST = 0.1 if LONG else 0.2  # their share: in short runs, each kind of mutation loses some as well
SEED = random.randrange(2**32)
# An answer takes at most 3 s; a busy machine adds to that, but nothing waits for this.
TIMEOUT = 60
GATEWAYS = ("STRIPE", "PAYPAL", "ADYEN")


class UnknownError(Exception):
    """The service said that it does not know."""


@dataclass
class Truth:
    """How often what was answered; `untruths` are answers that say something else than was done.

    `made` are the versions of tokens that answers said to be there, and when.
    """

    answers: Counter = field(default_factory=Counter)
    made: list = field(default_factory=list)
    untruths: list = field(default_factory=list)
    seconds: list = field(default_factory=list)

    def check(self, what, answer, expected):
        self.answers[what] += 1
        if answer != expected:
            self.untruths.append((what, answer, expected))


class Caller:
    """Makes one mutation after the other on users of its own, and knows what each has to answer."""

    def __init__(self, client, truth, name, chance):
        self.client, self.truth, self.name, self.chance = client, truth, name, chance
        self.number = 0
        self.tokens = {}

    async def mutate(self, name, **arguments):
        field_name, types, payload = MUTATIONS[name]
        declared = ", ".join(f"${argument}: {types[argument]}" for argument in arguments)
        passed = ", ".join(f"{argument}: ${argument}" for argument in arguments)
        began = asyncio.get_running_loop().time()
        answer = await self.client(f"mutation({declared}) {{ {field_name}({passed}) {{ {payload} }} }}", **arguments)
        self.truth.seconds.append(asyncio.get_running_loop().time() - began)
        if "errors" in answer:
            assert {error["extensions"]["code"] for error in answer["errors"]} == {"UNAVAILABLE"}, answer
            self.truth.answers["unavailable"] += 1
            raise UnknownError
        return answer["data"][field_name]

    async def run(self, mutations):
        for _ in range(mutations):
            self.number += 1
            step = self.chance.choice(STEPS)
            with suppress(UnknownError):
                await step(self, f"{self.name}-{self.number}")

    def check(self, what, answer, expected):
        self.truth.check(what, answer, expected)

    async def new(self, user, gateway="STRIPE", **rest):
        wanted = {"userId": user, "gateway": gateway, "gatewayCustomerId": f"cus_{user}_{gateway}", **rest}
        payload = await self.mutate("save", input=wanted)
        self.check("save new", (payload["created"], payload["userErrors"]), (True, []))
        return self.note(payload["gatewayToken"])

    def note(self, token):
        self.truth.made.append((asyncio.get_running_loop().time(), token["id"], token["version"]))
        return token

    async def change(self, what, name, token, version=None, **arguments):
        payload = await self.mutate(name, **arguments)
        expected = (token["version"] + 1 if version is None else version, [])
        changed = payload["gatewayToken"]
        self.check(what, (changed and changed["version"], payload["userErrors"]), expected)
        if changed is None:
            raise UnknownError
        return self.note(changed)

    async def update_text(self, user):
        token = await self.new(user)
        for text in ("one", "two"):
            change = {"id": token["id"], "description": text, "expectedVersion": token["version"]}
            token = await self.change("update text", "update", token, input=change)

    async def save_text(self, user):
        token = await self.new(user)
        for text in ("one", "two"):
            wanted = {key: token[key] for key in ("userId", "gateway", "gatewayCustomerId")}
            wanted |= {"description": text, "expectedVersion": token["version"]}
            token = await self.change("save text", "save", token, input=wanted)

    async def update_id(self, user):
        token = await self.new(user)
        change = {"id": token["id"], "gatewayCustomerId": f"new_{user}", "expectedVersion": token["version"]}
        await self.change("update id", "update", token, input=change)

    async def replace(self, user):
        token = await self.new(user)
        wanted = {key: token[key] for key in ("userId", "gateway")} | {
            "gatewayCustomerId": f"new_{user}",
            "replaces": token["gatewayCustomerId"],
            "expectedVersion": token["version"],
        }
        await self.change("save with replaces", "save", token, input=wanted)

    async def deactivate(self, user):
        token = await self.new(user)
        token = await self.change("deactivate", "deactivate", token, id=token["id"], expectedVersion=token["version"])
        await self.change("activate", "activate", token, id=token["id"], expectedVersion=token["version"])

    async def save_many(self, user):
        inputs = [
            {"userId": user, "gateway": gateway, "gatewayCustomerId": f"cus_{user}_{gateway}"} for gateway in GATEWAYS
        ]
        payload = await self.mutate("save_many", inputs=inputs)
        self.check("save many", (payload["createdCount"], payload["userErrors"]), (3, []))
        payload = await self.mutate("save_many", inputs=inputs)
        self.check("save many again", (payload["createdCount"], payload["userErrors"]), (0, []))

    async def claim(self, user):
        payload = await self.mutate("claim", userId=user, gateway="STRIPE", leaseSeconds=300)
        self.check("claim", payload["claim"]["acquired"], expected=True)
        payload = await self.mutate("claim", userId=user, gateway="STRIPE", leaseSeconds=300)
        self.check("claim again", payload["claim"]["acquired"], expected=False)
        key = {"userId": user, "gateway": "STRIPE", "idempotencyKey": payload["claim"]["idempotencyKey"]}
        for what, expected in (("release", True), ("release again", False)):
            self.check(what, (await self.mutate("release", **key))["released"], expected)

    async def merge(self, user):
        gateways = self.chance.sample(GATEWAYS, 2)
        for gateway in gateways:
            await self.new(user, gateway)
        payload = await self.mutate("merge", fromUserId=user, intoUserId=f"{user}-into")
        moved = [(token["userId"], token["gateway"], token["version"]) for token in payload["moved"]]
        self.check("merge", sorted(moved), sorted((f"{user}-into", gateway, 2) for gateway in gateways))

    async def delete(self, user):
        token = await self.new(user)
        payload = await self.mutate("delete", id=token["id"], expectedVersion=token["version"])
        expected = (token["id"], {"id": user}, [])
        self.check("delete", tuple(payload[name] for name in ("deletedId", "user", "userErrors")), expected)

    async def erase(self, user):
        await self.erased(user, "STRIPE")

    async def erased(self, user, gateway):
        token = await self.new(user, gateway)
        payload = await self.mutate("erase", userId=user)
        customers = [{key: token[key] for key in ("gateway", "gatewayCustomerId")}]
        self.check("erase", payload["erased"], customers)
        return customers

    async def confirm(self, user):
        customers = await self.erased(user, "PAYPAL")
        for what, expected in (("confirm", 1), ("confirm again", 0)):
            payload = await self.mutate("confirm", customers=customers)
            self.check(what, payload["confirmedCount"], expected)
        payload = await self.mutate("lift", userId=user)
        self.check("lift", (payload["user"], payload["userErrors"]), ({"id": user}, []))
        await self.new(user)

    async def create(self, user):
        wanted = {"userId": user, "gateway": "STRIPE", "gatewayCustomerId": f"cus_{user}"}
        token = await self.change("create", "create", {}, 1, input=wanted)
        customers = [{"gateway": "STRIPE", "gatewayCustomerId": f"cus_{user}", "toUserId": f"{user}-right"}]
        payload = await self.mutate("reassign", customers=customers)
        moved = [(each["userId"], each["version"]) for each in payload["gatewayTokens"]]
        self.check("reassign", (moved, payload["userErrors"]), ([(f"{user}-right", 2)], []))
        self.note(payload["gatewayTokens"][0])
        customer = {"gateway": "STRIPE", "gatewayCustomerId": token["gatewayCustomerId"]}
        await self.change("report gone", "deactivate_customer", token, 3, **customer)
        await self.change("report there", "verify", token, 4, **customer)

    async def race(self, user):
        """Of three callers at once one creates; of three changes of one version one is made."""
        wanted = {"userId": user, "gateway": "STRIPE", "gatewayCustomerId": f"cus_{user}"}
        saved = await self.at_once(*(self.mutate("save", input=wanted) for _ in range(3)))
        self.check("race to create", [payload["created"] for payload in saved].count(True), 1)
        token = saved[0]["gatewayToken"]
        changes = [
            {"id": token["id"], "description": f"{number}", "expectedVersion": token["version"]} for number in range(3)
        ]
        updated = await self.at_once(*(self.mutate("update", input=change) for change in changes))
        codes = sorted(error["code"] for payload in updated for error in payload["userErrors"])
        self.check("race to change", codes, ["STALE", "STALE"])
        claims = (self.mutate("claim", userId=f"{user}-c", gateway="STRIPE", leaseSeconds=300) for _ in range(3))
        claimed = [payload["claim"]["acquired"] for payload in await self.at_once(*claims)]
        self.check("race to claim", claimed.count(True), 1)

    async def at_once(self, *mutations):
        results = await asyncio.gather(*mutations, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results


STEPS = (
    Caller.update_text,
    Caller.save_text,
    Caller.update_id,
    Caller.replace,
    Caller.deactivate,
    Caller.save_many,
    Caller.claim,
    Caller.merge,
    Caller.delete,
    Caller.erase,
    Caller.confirm,
    Caller.create,
    Caller.race,
)


@asynccontextmanager
async def calling(url, *, prepares=True):
    """Callers of a service on this database, which waits very long for a statement, and what they found out."""
    times = {"database_timeout": TIMEOUT, "request_timeout": 2 * TIMEOUT}
    settings = Settings(database_url=url, database_prepared_statements=prepares, auth_secret=SECRET, **times)
    async with opened(create_app(settings)) as app:
        truth, chance = Truth(), random.Random(SEED)
        client = Client(app, mint(SECRET, "a-service", [ADMIN_SCOPE]))
        names = [f"caller-{number}-{secrets.token_hex(4)}" for number in range(CALLERS)]
        yield [Caller(client, truth, name, chance) for name in names], truth


BOTH_WAYS = pytest.mark.parametrize("way", ["straight", "by pooler"])


@pytest.fixture
def way():
    """How the proxy leads to PostgreSQL: `BOTH_WAYS` replaces it."""
    return "straight"


@pytest.fixture
async def proxy(postgres, way, tmp_path):
    pooler = nullcontext(postgres) if way == "straight" else pgbouncer(tmp_path, postgres.url)
    with pooler as before:
        async with Proxy.to("127.0.0.1", before.port) as proxy:
            yield proxy


@pytest.fixture
async def callers(postgres, proxy, way):
    """Callers of a service that knows only the proxy."""
    async with calling(postgres.url_by(proxy.port), prepares=way == "straight") as (some, truth):
        yield some, truth
        proxy.loses, proxy.silences, proxy.meanwhile = (lambda _: False), (lambda _: None), None


@pytest.fixture(scope="module", autouse=True)
async def _migrated(postgres):
    await upgrade(postgres.url)


async def run(callers, mutations=MUTATIONS_EACH):
    await asyncio.gather(*(caller.run(mutations) for caller in callers))


@BOTH_WAYS
async def test_every_answer_is_true_while_answers_to_commits_are_lost(callers, proxy, postgres, measured):
    some, truth = callers
    chance = random.Random(SEED)
    others, turn = await asyncpg.connect(postgres.url), asyncio.Lock()

    async def others_go_on():
        """Had the service to do it again, it would find nothing to erase, and not know whose token it deleted."""
        async with turn:
            await others.execute(
                "delete from gateway_erasures where gateway = 'STRIPE';"
                "update customer_gateway_token_events set user_id = null where action = 'DELETED' and user_id <> ''"
            )

    proxy.meanwhile = others_go_on
    proxy.loses = lambda chunk: (b"commit" in chunk or b'"call_id":' in chunk) and chance.random() < COMMITS_LOST
    await run(some)
    measured("mutations, answers lost", f"{sum(truth.answers.values())}, {proxy.lost}")
    assert truth.untruths == [], SEED
    assert proxy.lost > 10
    await others.close()
    assert await differences(postgres, truth) == []
    assert max(truth.seconds) < 3 or truth.answers["unavailable"] < sum(truth.answers.values()) / 100


@pytest.mark.parametrize("answer", [CommitStatus.UNKNOWN, UnavailableError(), asyncpg.PostgresError()], ids=repr)
async def test_a_change_whose_outcome_is_not_known_is_not_said_to_be_made(callers, proxy, monkeypatch, answer):
    async def ask(_runner, _transaction):
        if isinstance(answer, Exception):
            raise answer
        return answer

    [caller, *_], _ = callers
    monkeypatch.setattr(transactions, "ask", ask)
    proxy.loses = lambda chunk: b"commit" in chunk
    with pytest.raises(UnknownError):
        await caller.new(f"{caller.name}-unknown")


FAULTS = ["terminate_backends", "kill_a_backend", "kill_and_start"]


@pytest.mark.parametrize("faults", [[fault] for fault in FAULTS] if LONG else [FAULTS], ids=" ".join)
async def test_every_answer_is_true_while_postgresql_dies(callers, postgres, measured, faults):
    some, truth = callers
    faults_made = 0

    async def hurt(ends):
        nonlocal faults_made
        while not ends.is_set():
            await asyncio.sleep(random.random() * 2)
            with suppress(StopIteration, OSError, asyncpg.PostgresError):  # it recovers from the last fault
                done = getattr(postgres, random.choice(faults))()
                if done is not None:
                    await done
                faults_made += 1

    async with background(hurt):
        await run(some, MUTATIONS_EACH // 2)
    await postgres.answers()
    measured("mutations", dict(truth.answers))
    measured("faults", f"{faults_made}")
    assert faults_made
    assert truth.untruths == [], SEED
    assert await differences(postgres, truth) == []


@BOTH_WAYS
async def test_every_answer_is_true_and_comes_soon_while_connections_are_lost_without_a_word(
    callers, proxy, postgres, measured
):
    some, truth = callers
    chance = random.Random(SEED)

    def silences(chunk):
        """A commit more often, so that in short runs, too, some never reach the database."""
        share = 0.1 if b"commit" in chunk else 0.01
        return chance.choice(["request", "answer"]) if chance.random() < share else None

    proxy.silences = silences
    await run(some, MUTATIONS_EACH // 2)
    measured("mutations, connections lost", f"{sum(truth.answers.values())}, {proxy.lost}")
    measured("slowest answer", f"{max(truth.seconds):.2f} s")
    assert truth.untruths == [], SEED
    assert await differences(postgres, truth) == []
    assert max(truth.seconds) < TIMEOUT / 2, SEED


async def test_every_answer_is_true_while_another_server_takes_over(pair, measured):
    first, second = pair
    await upgrade(first.url)
    url = first.url.replace(f":{first.port}", f":{first.port},127.0.0.1:{second.port}")

    async def switch():
        await asyncio.sleep(random.random())
        await first.stop()
        await second.ask("select pg_promote()")

    async with calling(url) as (some, truth):
        await asyncio.gather(run(some, MUTATIONS_EACH // 2), switch())
        await run(some, 5)
    measured("mutations", dict(truth.answers))
    assert truth.untruths == [], SEED
    assert await differences(second, truth) == []


async def test_nothing_is_said_to_be_made_that_was_lost_with_a_server(pair):
    """The standby does not know the last commits, whose answers get lost as well."""
    first, second = pair
    await upgrade(first.url)
    async with Proxy.to("127.0.0.1", first.port) as proxy:
        url = first.url_by(proxy.port).replace(f":{proxy.port}", f":{proxy.port},127.0.0.1:{second.port}")
        async with calling(url) as (some, truth):
            await run(some, 1)
            await until(lambda: has_all_of(second, first), "the standby has it all")
            await second.stop_receiving()

            async def fail_over():
                await proxy.refuse()
                await first.kill()
                await second.ask("select pg_promote()")
                return asyncio.get_running_loop().time()

            failing = []

            async def begin():
                failing[:] = failing or [asyncio.create_task(fail_over())]
                await asyncio.shield(failing[0])

            proxy.loses, proxy.meanwhile = (lambda chunk: b"commit" in chunk), begin
            await run(some, 3)
            failed_over = await failing[0]
            truth.made = [each for each in truth.made if each[0] > failed_over]
            assert truth.made
            assert await differences(second, truth) == []


async def has_all_of(standby, primary):
    end = await primary.ask("select pg_current_wal_flush_lsn()::text")
    return await standby.ask(f"select pg_last_wal_replay_lsn() >= '{end}'::pg_lsn")


@asynccontextmanager
async def background(work):
    """Work that goes on until the end of this, and to the end of what it is doing then."""
    ends = asyncio.Event()
    task = asyncio.create_task(work(ends))
    yield
    ends.set()
    await task


async def differences(postgres, truth):
    """Tokens whose history does not lead to them, and what answers said that is not in it.

    Every version has one line, and the last one is the token.
    """
    connection = await asyncpg.connect(postgres.url)
    try:
        made = [list(each) for each in zip(*{(token, version) for _, token, version in truth.made}, strict=True)]
        return await connection.fetch(
            "select * from unnest($1::uuid[], $2::int[]) as made (id, version) where not exists (select from"
            " customer_gateway_token_events e where (e.token_id, e.version) = (made.id, made.version))",
            *made,
        ) + await connection.fetch(
            "select t.id, t.version, count(e.*) from customer_gateway_tokens t"
            " left join customer_gateway_token_events e on e.token_id = t.id group by t.id"
            " having count(e.*) <> t.version or max(e.version) <> t.version"
        )
    finally:
        await connection.close()


LOG_FUNCTIONS = ("pg_walfile_name(pg_lsn)", "pg_control_checkpoint()")
"""What a managed PostgreSQL may forbid."""


@pytest.fixture
async def hides_its_log(postgres):
    """A role from which PostgreSQL hides its log, as managed ones do."""
    for function in LOG_FUNCTIONS:
        await postgres.run(f"revoke execute on function {function} from public")
    await postgres.run("create role limited login password 'limited' in role pg_read_all_data, pg_write_all_data")
    for kind in ("schema", "all sequences in schema", "all functions in schema"):
        await postgres.run(f"grant all on {kind} public to limited")
    yield postgres.url.replace(urlsplit(postgres.url).netloc.partition("@")[0], "limited:limited")
    await postgres.run("drop owned by limited; drop role limited")
    for function in LOG_FUNCTIONS:
        await postgres.run(f"grant execute on function {function} to public")


async def test_a_lost_answer_is_found_or_said_to_be_unknown_where_postgresql_hides_its_log(
    hides_its_log, postgres, proxy
):
    limited = hides_its_log.replace(f":{postgres.port}/", f":{proxy.port}/")
    async with opened(create_app(Settings(database_url=limited, auth_secret=SECRET))) as app:
        truth = Truth()
        client = Client(app, mint(SECRET, "a-service", [ADMIN_SCOPE]))
        caller = Caller(client, truth, f"caller-{secrets.token_hex(4)}", random.Random(SEED))
        proxy.loses = lambda chunk: b"commit" in chunk
        for step in STEPS:
            with suppress(UnknownError):
                await step(caller, f"{caller.name}-{step.__name__}")
        proxy.loses = lambda _: False
    assert truth.untruths == []
    assert truth.answers["unavailable"] == 0
    assert proxy.lost > 10


async def test_the_outcome_is_unknown_after_a_restart_where_postgresql_hides_its_log(hides_its_log, postgres):
    async with ConnectionPool.open(hides_its_log) as pool:
        async with pool.transaction() as made:
            pass
        with suppress(KeyError):
            async with pool.transaction() as undone:
                raise KeyError
        never = made.id._replace(xid="99999999")
        known = [await transactions.ask(pool, each) for each in (made.id, undone.id, never)]
        assert known == [CommitStatus.COMMITTED, CommitStatus.ABORTED, CommitStatus.UNKNOWN]
        postgres.kill_a_backend()

        async def outcomes():
            with suppress(UnavailableError):
                return [await transactions.ask(pool, each) for each in (made.id, undone.id, never)]

        async def are_unknown():
            return await outcomes() == [CommitStatus.UNKNOWN] * 3

        await until(are_unknown, "the outcomes are unknown")


async def test_the_outcome_of_a_transaction_is_known_but_for_another_one_with_its_id(postgres):
    async with ConnectionPool.open(postgres.url) as pool:

        async def outcomes(*ids):
            return [await transactions.ask(pool, each) for each in ids]

        async with pool.transaction("create table if not exists outcomes (n int)") as made:
            pass
        with suppress(KeyError):
            async with pool.transaction("insert into outcomes values (1)") as undone:
                raise KeyError
        with suppress(UnavailableError):
            async with pool.transaction("insert into outcomes values (1)") as ended:
                assert await outcomes(ended.id) == [CommitStatus.IN_PROGRESS]
                await transactions.end(pool, ended.id)
                await ended.fetch(NOW)
        other = made.id._replace(server=made.id.began)
        later_timeline, never = other._replace(timeline="00000009"), made.id._replace(xid="99999999")
        assert await outcomes(other) == [CommitStatus.COMMITTED]
        assert await outcomes(made.id, undone.id, ended.id) == [
            CommitStatus.COMMITTED,
            CommitStatus.ABORTED,
            CommitStatus.ABORTED,
        ]
        assert await outcomes(later_timeline) == [CommitStatus.UNKNOWN]

        postgres.kill_a_backend()
        assert await outcomes(made.id, undone.id, never) == [
            CommitStatus.COMMITTED,
            CommitStatus.ABORTED,
            CommitStatus.ABORTED,
        ]
        async with pool.transaction("insert into outcomes values (1)") as later:
            pass
        assert await outcomes(later.id, later.id._replace(began=made.id.began)) == [
            CommitStatus.COMMITTED,
            CommitStatus.UNKNOWN,
        ]
