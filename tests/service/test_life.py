"""Random lives of a few users at two gateways, checked after every step against a model of what must be true then."""

import asyncio
import copy
import os
from dataclasses import dataclass, field

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.graph import problems, wanted

USERS = ["u1", "u2", "u3"]
GATEWAYS = ["STRIPE", "PAYPAL"]
CUSTOMERS = ["c1", "c2", "c3", "c4", "c5"]
REASONS = ["GATEWAY_DELETED", "USER_REQUEST", "FRAUD", "OTHER"]
EMPTY = (
    "truncate customer_gateway_tokens, gateway_customers, customer_gateway_token_events, departed_tokens,"
    " gateway_customer_claims, erased_users, gateway_erasures"
)
EXAMPLES = int(os.environ.get("LIFE_EXAMPLES", "60"))

NOWHERE = "0192d4e5-8c1a-7bbb-8ccc-0123456789ab"

numbers = st.integers(0, 5)
users, gateways, customers = st.sampled_from(USERS), st.sampled_from(GATEWAYS), st.sampled_from(CUSTOMERS)
edits = st.fixed_dictionaries(
    {},
    optional={
        "description": st.sampled_from([None, "a", "b"]),
        "isActive": st.booleans(),
        "replaces": st.sampled_from(["stored", "stored", "c1"]),
        "expectedVersion": st.sampled_from(["stored", "stored", 1, 2]),
    },
)
saves = st.builds(
    lambda user, gateway, customer, edit: wanted(user, gateway, customer) | edit, users, gateways, customers, edits
)


class RefusalError(Exception):
    """The code that the model expects."""


@dataclass
class Held:
    """A token as it must be."""

    id: str
    user: str
    gateway: str
    customer: str
    description: str | None = None
    active: bool = True
    reason: str | None = None
    verified: int | None = None
    version: int = 0

    @property
    def place(self):
        return self.user, self.gateway


@dataclass
class Model:
    """Who has what, whose each identifier is, who waits for a customer, who was erased, and every line of history."""

    tokens: dict = field(default_factory=dict)
    owners: dict = field(default_factory=dict)
    claims: dict = field(default_factory=dict)
    spent_keys: set = field(default_factory=set)
    erased: set = field(default_factory=set)
    to_erase: dict = field(default_factory=dict)
    lines: dict = field(default_factory=dict)
    """By token: (version, action, user, gateway, customer, active, reason)."""

    def by_id(self, token_id):
        token = next((token for token in self.tokens.values() if token.id == token_id), None)
        if token is None:
            raise RefusalError("NOT_FOUND")
        return token

    def by_customer(self, gateway, customer):
        return self.tokens.get((self.owners.get((gateway, customer)), gateway))

    def former(self, token):
        mine = {
            customer
            for place, user in self.owners.items()
            for customer in [place[1]]
            if (user, place[0]) == token.place
        }
        return mine - {token.customer}

    def record(self, token, action, reason=None):
        token.version += 1
        line = (token.version, action, token.user, token.gateway, token.customer, token.active, reason)
        self.lines.setdefault(token.id, []).append(line)

    def save(self, wish, *, updates=True):
        """The token after this save, and whether it is new; its id is not known yet."""
        user, gateway, customer = wish["userId"], wish["gateway"], wish["gatewayCustomerId"]
        token = self.tokens.get((user, gateway))
        if token is not None:
            expect(token, wish)
            if token.customer not in {customer, wish.get("replaces")}:
                raise RefusalError("ALREADY_EXISTS")
            if updates:
                self.edit(token, wish)
            return token, False
        if wish.get("expectedVersion") is not None:
            raise RefusalError("STALE")
        if user in self.erased:
            raise RefusalError("ERASED")
        self.take(user, gateway, customer)
        active = wish.get("isActive", True)
        reason = None if active else "OTHER"
        token = Held("new", user, gateway, customer, wish.get("description"), active, reason)
        self.tokens[token.place] = token
        self.end_claim(token.place)
        self.record(token, "CREATED", reason)
        return token, True

    def edit(self, token, wish):
        before, action, reason = copy.copy(token), "UPDATED", None
        token.description = wish.get("description", token.description)
        if wish.get("isActive", token.active) != token.active:
            token.active = wish["isActive"]
            token.reason = reason = None if token.active else "OTHER"
            action = "ACTIVATED" if token.active else "DEACTIVATED"
        if wish.get("gatewayCustomerId", token.customer) != token.customer:
            self.take_or_restore(token, before, wish["gatewayCustomerId"])
            token.customer, token.verified, action = wish["gatewayCustomerId"], None, "REPLACED"
        if token != before:
            self.record(token, action, reason)

    def take_or_restore(self, token, before, customer):
        try:
            self.take(token.user, token.gateway, customer)
        except RefusalError:
            vars(token).update(vars(before))
            raise

    def take(self, user, gateway, customer):
        if self.owners.setdefault((gateway, customer), user) != user:
            raise RefusalError("CUSTOMER_TAKEN")

    def end_claim(self, place):
        if place in self.claims:
            self.spent_keys.add(self.claims.pop(place))

    def deactivate(self, token, reason):
        if token.active:
            token.active, token.reason = False, reason
            self.record(token, "DEACTIVATED", reason)

    def delete(self, token, action):
        del self.tokens[token.place]
        self.record(token, action)

    def merge(self, source, target, policy):
        """Which customers move and which lose, by gateway."""
        if source == target:
            raise RefusalError("INVALID")
        if target in self.erased:
            raise RefusalError("ERASED")
        moving = {gateway: token for (user, gateway), token in self.tokens.items() if user == source}
        there = {gateway: token for (user, gateway), token in self.tokens.items() if user == target}
        both = moving.keys() & there.keys()
        if both and policy == "FAIL":
            return {}, {gateway: moving[gateway].customer for gateway in both}
        losers = [(there if policy == "KEEP_SOURCE" else moving)[gateway] for gateway in both]
        lost = {token.gateway: token.customer for token in losers}
        for token in losers:
            del self.tokens[token.place]
            token.user, token.active = target, False
            self.record(token, "MERGED", "MERGED")
        moved = [token for token in moving.values() if token not in losers]
        for token in moved:
            del self.tokens[token.place]
            token.user = target
            self.tokens[token.place] = token
            self.end_claim(token.place)
        winners = moved if policy == "KEEP_SOURCE" else [*moved, *(there[gateway] for gateway in both)]
        for token in winners:
            self.record(token, "MERGED")
        self.owners = {place: target if user == source else user for place, user in self.owners.items()}
        return {token.gateway: token.customer for token in moved}, lost

    def erase(self, user):
        self.to_erase |= {place: user for place, owner in self.owners.items() if owner == user}
        for token in [token for token in self.tokens.values() if token.user == user]:
            self.delete(token, "ERASED")
        for token_id, lines in self.lines.items():
            self.lines[token_id] = [
                (version, action, None, gateway, "", active, None)
                if user in {owner, self.owners.get((gateway, customer))}
                else line
                for line in lines
                for version, action, owner, gateway, customer, active, _ in [line]
            ]
        self.owners = {place: owner for place, owner in self.owners.items() if owner != user}
        for place in [place for place in self.claims if place[0] == user]:
            self.end_claim(place)
        self.erased.add(user)
        return sorted(place for place, was in self.to_erase.items() if was == user and place not in self.owners)


def expect(token, wish):
    if wish.get("expectedVersion") not in {None, token.version}:
        raise RefusalError("STALE")


def predicted(what, *arguments, **options):
    """What the model answers, and the code of its refusal."""
    try:
        return what(*arguments, **options), None
    except RefusalError as refusal:
        return None, str(refusal)


def code_of(payload):
    return next((code for code, _ in problems(payload)), None)


class Life(RuleBasedStateMachine):
    """Each rule does something by GraphQL and in the model, and compares what both say."""

    def __init__(self, run, graph, connection):
        super().__init__()
        self.run, self.graph, self.connection = run, graph, connection
        self.model = Model()
        self.times = {}
        self.base = "2026-11-22T00:00:{:02}Z"
        run(connection.execute(EMPTY))

    def wish(self, drawn, token=None):
        """What was drawn, where it speaks of what is stored in the words of that."""
        token = token or self.model.tokens.get((drawn.get("userId"), drawn.get("gateway")))
        stored = {"replaces": token.customer if token else "c1", "expectedVersion": token.version if token else 1}
        return {name: stored[name] if value == "stored" else value for name, value in drawn.items()}

    def name(self, token, payload):
        """A new token's id is the service's to choose."""
        if token is not None and token.id == "new":
            token.id = payload["id"]
            self.model.lines[token.id] = self.model.lines.pop("new")

    def some_id(self, number):
        """The id of a token, or for 0, or where there is none, of one that is gone, or never was."""
        here = sorted(token.id for token in self.model.tokens.values())
        gone = sorted(self.model.lines.keys() - set(here))
        return here[number % len(here)] if here and number else gone[-1] if gone else NOWHERE

    @initialize(wishes=st.lists(saves, min_size=2, max_size=8))
    def begin(self, wishes):
        self.save_many([{**wish, "expectedVersion": None} for wish in wishes], "CONTINUE")

    @rule(wish=saves)
    def create(self, wish):
        wish = {name: value for name, value in wish.items() if name not in {"replaces", "expectedVersion"}}
        payload = self.run(self.graph.mutate("create", input=wish))
        saved, code = predicted(self.model.save, wish, updates=False)
        assert code_of(payload) == code
        self.name(saved and saved[0], payload["gatewayToken"])

    @rule(wish=saves)
    def save(self, wish):
        wish = self.wish(wish)
        payload = self.run(self.graph.mutate("save", input=wish))
        saved, code = predicted(self.model.save, wish)
        assert code_of(payload) == code
        self.name(saved and saved[0], payload["gatewayToken"])
        assert payload["created"] == bool(saved and saved[1])

    @rule(wishes=st.lists(saves, max_size=5), policy=st.sampled_from(["ABORT", "CONTINUE"]))
    def save_many(self, wishes, policy):
        wishes = [self.wish(wish) for wish in wishes]
        payload = self.run(self.graph.save_many(wishes, onError=policy))
        model, codes, created = copy.deepcopy(self.model), {}, 0
        for index, wish in enumerate(wishes):
            saved, code = predicted(model.save, wish)
            if code:
                codes[str(index)] = code
            else:
                answer = payload["gatewayTokens"][index]
                created += saved[1]
                if saved[0].id == "new":
                    saved[0].id = answer["id"] if answer else f"aborted {index}"
                    model.lines[saved[0].id] = model.lines.pop("new")
        assert {error["field"][1]: error["code"] for error in payload["userErrors"]} == codes
        if codes and policy == "ABORT":
            assert payload["gatewayTokens"] == [None] * len(wishes)
            assert payload["createdCount"] == 0
        else:
            assert [index for index, token in enumerate(payload["gatewayTokens"]) if token is None] == list(
                map(int, codes)
            )
            assert payload["createdCount"] == created
            self.model = model

    @rule(number=numbers, edit=edits, customer=st.none() | customers)
    def update(self, number, edit, customer):
        token_id = self.some_id(number)
        stored, _ = predicted(self.model.by_id, token_id)
        change = {name: value for name, value in self.wish(edit, stored).items() if name != "replaces"}
        if customer is not None:
            change["gatewayCustomerId"] = customer
        payload = self.run(self.graph.update({"id": token_id}, **change))

        def change_it():
            token = self.model.by_id(token_id)
            expect(token, change)
            self.model.edit(token, change)

        assert code_of(payload) == predicted(change_it)[1]

    @rule(number=numbers, reason=st.none() | st.sampled_from(REASONS))
    def switch(self, number, reason):
        token = {"id": self.some_id(number)}
        payload = self.run(self.graph.deactivate(token, reason=reason) if reason else self.graph.activate(token))
        found, code = predicted(self.model.by_id, token["id"])
        assert code_of(payload) == code
        if found and reason:
            self.model.deactivate(found, reason)
        elif found:
            self.model.edit(found, {"isActive": True})

    @rule(number=numbers)
    def delete(self, number):
        token_id = self.some_id(number)
        payload = self.run(self.graph.delete({"id": token_id}))
        found, code = predicted(self.model.by_id, token_id)
        if code and token_id in self.model.lines:
            assert (payload["deletedId"], code_of(payload)) == (token_id, None)
            assert (payload["user"] or {"id": None})["id"] == self.model.lines[token_id][-1][2]
        else:
            assert code_of(payload) == code
        if found:
            self.model.delete(found, "DELETED")

    @rule(gateway=gateways, customer=customers, reason=st.sampled_from(REASONS))
    def gone_at_gateway(self, gateway, customer, reason):
        payload = self.run(self.graph.deactivate_customer(gateway, customer, reason=reason))
        token = self.model.by_customer(gateway, customer)
        assert (payload["gatewayToken"] or {"id": None})["id"] == (token and token.id)
        if token and token.customer == customer:
            self.model.deactivate(token, reason)

    @rule(gateway=gateways, customer=customers, second=st.integers(0, 9))
    def verify(self, gateway, customer, second):
        payload = self.run(self.graph.verify(gateway, customer, at=self.base.format(second)))
        token = self.model.by_customer(gateway, customer)
        assert code_of(payload) == (None if token else "NOT_FOUND")
        if token and token.customer == customer and (token.verified is None or second > token.verified):
            token.verified = second
            self.model.record(token, "VERIFIED")

    @rule(user=users, gateway=gateways)
    def claim(self, user, gateway):
        payload = self.run(self.graph.claim(user, gateway, leaseSeconds=300))
        token, pending = self.model.tokens.get((user, gateway)), self.model.claims.get((user, gateway))
        if token:
            assert (payload["gatewayToken"]["id"], payload["claim"]) == (token.id, None)
        elif user in self.model.erased:
            assert code_of(payload) == "ERASED"
        else:
            key = payload["claim"]["idempotencyKey"]
            assert payload["claim"]["acquired"] == (pending is None)
            assert pending in {None, key}
            assert key not in self.model.spent_keys
            self.model.claims[user, gateway] = key

    @rule(
        users=st.permutations(USERS),
        policy=st.sampled_from(["FAIL", "KEEP_TARGET", "KEEP_SOURCE"]),
        dry=st.sampled_from([False, False, True]),
    )
    def merge(self, users, policy, dry):
        guest, into, _ = users
        payload = self.run(self.graph.merge(guest, into, onConflict=policy, dryRun=dry))
        outcome, code = predicted((copy.deepcopy(self.model) if dry else self.model).merge, guest, into, policy)
        if code:
            assert code_of(payload) == code
            return
        moved, conflicts = outcome
        assert {token["gateway"]: token["gatewayCustomerId"] for token in payload["moved"]} == moved
        assert {token["gateway"]: token["gatewayCustomerId"] for token in payload["conflicts"]} == conflicts
        assert code_of(payload) == ("ALREADY_EXISTS" if conflicts and policy == "FAIL" else None)

    @rule(user=users, once_in_a_while=st.integers(0, 2))
    def erase(self, user, once_in_a_while):
        if once_in_a_while:
            return
        payload = self.run(self.graph.erase(user))
        erased = [(each["gateway"], each["gatewayCustomerId"]) for each in payload["erased"]]
        assert erased == self.model.erase(user)
        departed = self.run(self.connection.fetch("select user_id, token_id from departed_tokens"))
        named = {token_id for token_id, lines in self.model.lines.items() if any(owner for _, _, owner, *_ in lines)}
        assert user not in {owner for owner, _ in departed}
        assert {str(token_id) for _, token_id in departed} <= named

    @rule(user=users)
    def lift(self, user):
        self.run(self.graph.lift(user))
        self.model.erased.discard(user)

    @invariant()
    def tokens_are_those_of_the_model(self):
        rows = self.run(self.connection.fetch("select * from customer_gateway_tokens"))
        stored = {
            str(row["id"]): (
                row["user_id"],
                row["gateway"],
                row["gateway_customer_id"],
                row["description"],
                row["is_active"],
                row["deactivation_reason"],
                row["last_verified_at"] and row["last_verified_at"].second,
                row["version"],
            )
            for row in rows
        }
        assert stored == {
            token.id: (
                *token.place,
                token.customer,
                token.description,
                token.active,
                token.reason,
                token.verified,
                token.version,
            )
            for token in self.model.tokens.values()
        }
        for row in rows:
            version, before = self.times.get(row["id"], (0, row["created_at"]))
            assert (row["updated_at"] > before) == (row["version"] > version) or version == 0
            self.times[row["id"]] = row["version"], row["updated_at"]

    @invariant()
    def identifiers_claims_and_history_are_those_of_the_model(self):
        owners = self.run(self.connection.fetch("select gateway, gateway_customer_id, user_id from gateway_customers"))
        assert {(gateway, customer): user for gateway, customer, user in owners} == self.model.owners
        claims = self.run(self.connection.fetch("select user_id, gateway from gateway_customer_claims"))
        assert {tuple(row) for row in claims} == self.model.claims.keys()
        rows = self.run(
            self.connection.fetch(
                "select token_id, version, action, user_id, gateway, gateway_customer_id, is_active, reason"
                " from customer_gateway_token_events order by version"
            )
        )
        lines = {}
        for token_id, *line in rows:
            lines.setdefault(str(token_id), []).append(tuple(line))
        assert lines == self.model.lines

    @invariant()
    def lookups_find_what_the_model_has(self):
        keys = [(gateway, customer) for gateway in GATEWAYS for customer in CUSTOMERS]
        found = self.run(
            self.graph.entities(
                [
                    *({"__typename": "User", "id": user} for user in USERS),
                    *({"__typename": "CustomerGatewayToken", "gateway": g, "gatewayCustomerId": c} for g, c in keys),
                ],
                of_user="gatewayTokens { id formerGatewayCustomerIds }",
                of_token="key: id",
            )
        )
        for user, answer in zip(USERS, found, strict=False):
            mine = [token for _, token in sorted(self.model.tokens.items()) if token.user == user]
            assert [token["id"] for token in answer["gatewayTokens"]] == [token.id for token in mine]
            former = [set(token["formerGatewayCustomerIds"]) for token in answer["gatewayTokens"]]
            assert former == [self.model.former(token) for token in mine]
        by_customer = [self.model.by_customer(*key) for key in keys]
        assert [each and each["key"] for each in found[len(USERS) :]] == [token and token.id for token in by_customer]


async def test_any_life_keeps_every_promise(graph, connection):
    loop = asyncio.get_running_loop()

    def run(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    def life():
        return Life(run, graph, connection)

    # A life of twenty steps can be read as it is, and making it shorter takes minutes.
    phases = set(Phase) - {Phase.shrink, Phase.explain}
    chosen = settings(max_examples=EXAMPLES, stateful_step_count=20, deadline=None, phases=phases)
    await asyncio.to_thread(run_state_machine_as_test, life, settings=chosen)
