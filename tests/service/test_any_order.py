"""Whatever happens to a customer's token, and in whatever order: whether it is alive depends on what was said of it."""

import os
from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphql_api.bulk.importing import import_tokens
from graphql_api.bulk.reconciling import apply
from graphql_api.domain.inputs import Gateways
from graphql_api.storage.customer_lists import CustomerList, ListedCustomer
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore
from tests.service.test_life import EMPTY

BASE = datetime.now(UTC) - timedelta(hours=1)
NOW = 100
"""What happens now is later than all reports that come late."""

CUSTOMERS = ["c1", "c2", "c3"]
users, customers, seconds = st.sampled_from("ab"), st.sampled_from(CUSTOMERS), st.integers(1, 9)
files = st.fixed_dictionaries(
    {},
    optional={
        "lastVerifiedAt": seconds,
        "deactivated": st.tuples(st.sampled_from(["GATEWAY_DELETED", "GATEWAY_DELETED", "FRAUD"]), seconds),
    },
)
STEPS = st.one_of(
    st.tuples(st.just("save"), users, customers, st.sampled_from([None, None, True, False])),
    st.tuples(st.just("report"), st.sampled_from(["gone", "gone", "exists"]), customers, st.none() | seconds),
    st.tuples(st.just("activate"), users),
    st.tuples(st.just("activate"), users),
    st.tuples(st.just("activate"), users),
    st.tuples(st.just("deactivate"), users),
    st.tuples(st.just("deactivate_as_gone"), users),
    st.tuples(st.just("delete"), users),
    st.tuples(st.just("merge"), st.permutations("ab"), st.sampled_from(["KEEP_TARGET", "KEEP_SOURCE"])),
    st.tuples(st.just("reassign"), st.dictionaries(customers, users, min_size=1, max_size=2)),
    st.tuples(st.just("reassign"), st.dictionaries(customers, users, min_size=1, max_size=2)),
    st.tuples(st.just("import_row"), users, customers, files),
    st.tuples(st.just("import_row"), users, customers, files),
    st.tuples(st.just("reconcile"), st.sets(customers, min_size=1), seconds),
    st.tuples(st.just("reconcile"), st.sets(customers, min_size=1), seconds),
    st.tuples(st.just("erase"), users),
    st.tuples(st.just("confirm")),
)
# Deleted customers turn out to belong to another user, or the user to have another customer.
GIVEN_AWAY = st.builds(
    lambda gone, customer, user: [*(("report", "gone", each, None) for each in gone), ("reassign", {customer: user})],
    st.permutations(CUSTOMERS).flatmap(lambda some: st.integers(1, 3).map(lambda size: some[:size])),
    customers,
    users,
)
# A deletion is reported by the id of the token, which is inactive already, for one reason or the other.
SAID_AGAIN = st.builds(
    lambda user, before, after: [before(user), ("deactivate_as_gone", user), after],
    users,
    st.sampled_from([lambda user: ("deactivate", user), lambda user: ("save", user, "c1", False)])
    | customers.map(lambda customer: lambda _: ("report", "gone", customer, 2)),
    users.map(lambda user: ("delete", user)) | customers.map(lambda customer: ("report", "exists", customer, 5)),
)
# A file says how a token was before it was activated, perhaps once more.
FROM_A_FILE = st.builds(
    lambda user, customer, row: [("activate", user), ("import_row", user, customer, row)], users, customers, files
)
# Both users have a customer, and one had another. At the end every customer is looked at, and told to be gone for long.
BEGIN = [("save", user, customer, None) for user, customer in (("a", "c3"), ("a", "c1"), ("b", "c2"))]
END = [
    step
    for customer in CUSTOMERS
    for step in (("save", "a", customer, None), ("save", "b", customer, None), ("report", "gone", customer, 9))
]


class Model:
    """What was said of each customer, whose it is, and each user's customer with a reason of our own to leave it."""

    def __init__(self):
        self.said, self.owners, self.tokens, self.to_erase, self.clock = {}, {}, {}, set(), NOW
        self.reassigned = 0

    def report(self, what, customer, at):
        self.clock += 1
        self.said[what, customer] = max(self.said.get((what, customer), 0), at or self.clock)

    def is_gone(self, token):
        gone, *others = (self.said.get((what, token[0]), 0) for what in ("gone", "exists", "activated"))
        return token[1] is None and 0 < gone >= max(others)

    def save(self, user, customer, is_active, own="OTHER"):
        if self.owners.setdefault(customer, user) != user:
            return
        before = self.tokens.get(user, (customer, None))
        was_active = user not in self.tokens or not (before[1] or self.is_gone(before))
        ends = is_active is False and (was_active or (before[0] != customer and not before[1]))
        self.tokens[user] = (customer, own if ends else before[1])
        if is_active and not was_active:
            self.tokens[user] = (customer, None)
            self.report("activated", customer, None)

    def activate(self, user):
        if user in self.tokens:
            self.tokens[user] = (self.tokens[user][0], None)
            self.report("activated", self.tokens[user][0], None)

    def deactivate(self, user):
        if user in self.tokens:
            self.save(user, self.tokens[user][0], is_active=False, own="FRAUD")

    def deactivate_as_gone(self, user):
        if user in self.tokens:
            self.report("gone", self.tokens[user][0], None)

    def delete(self, user):
        self.tokens.pop(user, None)

    def settle(self, place, *rivals):
        """The place is had by the first of these who is not gone, or the first."""
        if rivals:
            self.tokens[place] = min(rivals, key=self.is_gone)

    def merge(self, users, policy):
        both = [self.tokens.pop(user) for user in reversed(users) if user in self.tokens]
        self.settle(users[1], *(both if policy == "KEEP_TARGET" else reversed(both)))
        if len(both) == len([token for token in both if self.is_gone(token)]) > 1:
            self.tokens[users[1]] = both[0]
        self.owners = dict.fromkeys(self.owners, users[1])

    def reassign(self, goals):
        if not goals.keys() <= self.owners.keys():
            return
        goes = {user: goals.get(token[0], user) for user, token in self.tokens.items()}
        order = sorted(self.tokens, key=lambda user: (goes[user] == user, [*goals, ""].index(self.key(user, goals))))
        rivals = {place: [self.tokens[user] for user in order if goes[user] == place] for place in "ab"}
        if all(len([token for token in some if not self.is_gone(token)]) < 2 for some in rivals.values()):
            moved = [(self.owners[customer], user) for customer, user in goals.items() if self.owners[customer] != user]
            self.reassigned += sum(len(rivals[place]) for place in {user for pair in moved for user in pair})
            self.owners |= goals
            self.tokens = {}
            for place, some in rivals.items():
                self.settle(place, *some)

    def key(self, user, goals):
        return self.tokens[user][0] if self.tokens[user][0] in goals else ""

    def import_row(self, user, customer, row):
        if self.tokens.get(user, [customer])[0] != customer or self.owners.get(customer, user) != user:
            return
        reason, at = row.get("deactivated", (None, None))
        if "lastVerifiedAt" in row:
            self.report("exists", customer, row["lastVerifiedAt"])
        if reason == "GATEWAY_DELETED":
            self.report("gone", customer, at)
        is_outdated = user in self.tokens and (at or 0) < self.said.get(("activated", customer), 0)
        self.save(user, customer, is_active=False if reason == "FRAUD" and not is_outdated else None, own="FRAUD")

    def reconcile(self, deleted, at):
        for customer in deleted:
            self.report("gone", customer, at)

    def erase(self, user):
        self.delete(user)
        self.to_erase |= {customer for customer, owner in self.owners.items() if owner == user}
        self.owners = {customer: owner for customer, owner in self.owners.items() if owner != user}

    def confirm(self):
        gone = self.to_erase - self.owners.keys()
        self.said = {key: at for key, at in self.said.items() if key[1] not in gone}
        self.to_erase -= gone

    def state(self, user):
        customer, own = token = self.tokens[user]
        gone_at = min(self.said["gone", customer], NOW) if self.is_gone(token) else None
        verified_at = min(self.said.get(("exists", customer), 0), NOW) or None
        return customer, own or ("GATEWAY_DELETED" if gone_at else None), gone_at, verified_at


class Service:
    """The same by GraphQL, and by files."""

    def __init__(self, graph, connection, database):
        self.graph, self.connection, self.database = graph, connection, database

    async def tokens(self):
        rows = await self.connection.fetch("select * from customer_gateway_tokens")
        return {row["user_id"]: row for row in rows}

    async def report(self, what, customer, at):
        send = {"gone": self.graph.deactivate_customer, "exists": self.graph.verify}[what]
        field = {"gone": "occurredAt", "exists": "at"}[what]
        await send("STRIPE", customer, **({field: time_of(at)} if at else {}))

    async def save(self, user, customer, is_active):
        stored = (await self.tokens()).get(user)
        replaces = {"replaces": stored["gateway_customer_id"]} if stored else {}
        wish = {} if is_active is None else {"isActive": is_active}
        await self.graph.save(user, "STRIPE", customer, **replaces, **wish)

    async def _with_token(self, do, user, **arguments):
        if token := (await self.tokens()).get(user):
            await do({"id": str(token["id"])}, **arguments)

    async def activate(self, user):
        await self._with_token(self.graph.activate, user)

    async def deactivate(self, user):
        await self._with_token(self.graph.deactivate, user, reason="FRAUD")

    async def deactivate_as_gone(self, user):
        await self._with_token(self.graph.deactivate, user, reason="GATEWAY_DELETED")

    async def delete(self, user):
        await self._with_token(self.graph.delete, user)

    async def merge(self, users, policy):
        before = {token["id"]: token for user in users for token in await self.graph.tokens(user)}
        conflicts = (await self.graph.merge(*users, onConflict=policy))["conflicts"]
        assert conflicts == [before[token["id"]] for token in conflicts]

    async def reassign(self, goals):
        await self.graph.reassign(*(("STRIPE", customer, user) for customer, user in goals.items()))

    async def import_row(self, user, customer, row):
        reason, at = row.get("deactivated", (None, None))
        record = {"userId": user, "gateway": "STRIPE", "gatewayCustomerId": customer}
        if reason:
            record |= {"isActive": False, "deactivationReason": reason, "deactivatedAt": time_of(at)}
        if "lastVerifiedAt" in row:
            record["lastVerifiedAt"] = time_of(row["lastVerifiedAt"])
        async for _ in import_tokens(TokenStore(self.database), Gateways(), iter([(1, record)])):
            pass

    async def reconcile(self, deleted, at):
        store = TokenStore(self.database)
        async with store.transaction(()) as transaction:
            customer_list = CustomerList(transaction.raw, "STRIPE", BASE + timedelta(seconds=at))
            await customer_list.load(ListedCustomer(customer, is_deleted=True) for customer in deleted)
            async for _ in apply(store, customer_list):
                pass

    async def erase(self, user):
        await self.graph.erase(user)
        await self.graph.lift(user)

    async def confirm(self):
        listed = (await self.graph.erasures())["nodes"]
        await self.graph.confirm(*((each["gateway"], each["gatewayCustomerId"]) for each in listed))

    async def states(self):
        return {
            user: (
                row["gateway_customer_id"],
                row["deactivation_reason"],
                second_of(row["deactivated_at"]) if row["deactivation_reason"] == "GATEWAY_DELETED" else None,
                second_of(row["last_verified_at"]),
            )
            for user, row in (await self.tokens()).items()
        }


def time_of(second):
    return (BASE + timedelta(seconds=second)).isoformat(timespec="microseconds")


def second_of(time):
    return time and min(round((time - BASE).total_seconds()), NOW)


@pytest.fixture
async def service(graph, connection, database_url):
    async with ConnectionPool.open(database_url, size=2) as database:
        yield Service(graph, connection, database)


@settings(
    max_examples=int(os.environ.get("LIFE_EXAMPLES", "60")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(
    some=st.lists(
        st.one_of(*[GIVEN_AWAY] * 3, SAID_AGAIN, FROM_A_FILE, STEPS.map(lambda step: [step])), min_size=4, max_size=10
    ),
    random=st.randoms(use_true_random=False),
)
async def test_whatever_happens_to_a_token_its_customer_is_as_alive_as_was_said(service, some, random):
    model, steps = Model(), list(chain.from_iterable(some))
    await service.connection.execute(EMPTY)
    late = [step for step in steps if step[0] == "report" and step[3]]
    random.shuffle(late)
    for name, *arguments in [*BEGIN, *steps, *late, *END]:  # what gateways report comes twice, and in another order
        getattr(model, name)(*arguments)
        await getattr(service, name)(*arguments)
        expected = {user: model.state(user) for user in model.tokens}
        assert await service.states() == expected, (name, *arguments)
    lines = "select count(*) from customer_gateway_token_events where action = 'REASSIGNED'"
    assert await service.connection.fetchval(lines) == model.reassigned
