"""Random lives of a few users at two gateways, checked after every step against a model of what must be true then."""

import asyncio
import copy
import os
from collections import defaultdict
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
    " gateway_customer_claims, erased_users, gateway_customer_reports, gateway_erasures"
)
EXAMPLES = int(os.environ.get("LIFE_EXAMPLES", "60"))

NOWHERE = "0192d4e5-8c1a-7bbb-8ccc-0123456789ab"

NOW = 1000

seconds = st.none() | st.integers(1, 9)
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
    own: str | None = None
    """The reason of our own for which it is inactive."""
    version: int = 0

    @property
    def place(self):
        return self.user, self.gateway

    @property
    def key(self):
        return self.gateway, self.customer


@dataclass
class Facts:
    """The latest times at which a customer was said to be gone, to exist, and to be active by our own decision."""

    gone: int | None = None
    exists: int | None = None
    activated: int | None = None

    @property
    def alive(self):
        return self.gone is None or any(at is not None and at > self.gone for at in (self.exists, self.activated))

    def say(self, what, at):
        before = getattr(self, what)
        setattr(self, what, at if before is None else max(before, at))


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
    facts: dict = field(default_factory=lambda: defaultdict(Facts))
    """By (gateway, customer), whoever has it."""
    clock: int = 1000
    """What happens now is later than all times of reports that come late."""

    def now(self):
        self.clock += 1
        return self.clock

    def active(self, token):
        return token.own is None and self.facts[token.key].alive

    def reason(self, token):
        return None if self.active(token) else token.own or "GATEWAY_DELETED"

    def report(self, key, what, at):
        token = self.by_customer(*key)
        was = token and self.active(token)
        self.facts[key].say(what, self.now() if at is None else at)
        if token and token.key == key and self.active(token) != was:
            action, reason = ("DEACTIVATED", "GATEWAY_DELETED") if was else ("ACTIVATED", "VERIFIED")
            self.record(token, action, reason)

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
        line = (token.version, action, *token.place, token.customer, self.active(token), reason)
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
        own = None if wish.get("isActive", True) else "OTHER"
        token = Held("new", user, gateway, customer, wish.get("description"), own)
        self.tokens[token.place] = token
        self.end_claim(token.place)
        self.record(token, "CREATED", self.reason(token))
        return token, True

    def edit(self, token, wish, *, confirms=False):
        before, was, actions = copy.copy(token), self.active(token), ["UPDATED"]
        customer = wish.get("gatewayCustomerId", token.customer)
        if customer != token.customer:
            self.take(token.user, token.gateway, customer)
            token.customer, actions = customer, ["REPLACED"]
            self.end_claim(token.place)
        token.description = wish.get("description", token.description)
        if confirms and was:
            self.facts[token.key].say("activated", self.now())
        if wish.get("isActive") is True and not was:
            token.own = None
            self.facts[token.key].say("activated", self.now())
            actions.append("ACTIVATED")
        if wish.get("isActive") is False and (was or ("REPLACED" in actions and token.own is None)):
            token.own = "OTHER"
            actions.append("DEACTIVATED")
        if token != before or self.active(token) != was:
            action = "REPLACED" if "REPLACED" in actions else actions[-1]
            self.record(token, action, self.reason(token) if self.active(token) != was else None)

    def take(self, user, gateway, customer):
        if self.owners.setdefault((gateway, customer), user) != user:
            raise RefusalError("CUSTOMER_TAKEN")

    def end_claim(self, place):
        if place in self.claims:
            self.spent_keys.add(self.claims.pop(place))

    def deactivate(self, token, reason):
        if self.active(token):
            if reason == "GATEWAY_DELETED":
                self.facts[token.key].say("gone", self.now())
            else:
                token.own = reason
            self.record(token, "DEACTIVATED", reason)

    def delete(self, token, action):
        del self.tokens[token.place]
        self.record(token, action)

    def merge(self, source, target, policy):
        """Which customers move, which lose, and which win over those, by gateway."""
        if source == target:
            raise RefusalError("INVALID")
        if target in self.erased:
            raise RefusalError("ERASED")
        moving = {gateway: token for (user, gateway), token in self.tokens.items() if user == source}
        there = {gateway: token for (user, gateway), token in self.tokens.items() if user == target}
        both = moving.keys() & there.keys()
        gone = {token.id for token in self.tokens.values() if self.reason(token) == "GATEWAY_DELETED"}
        conflicts = {gateway for gateway in both if not {moving[gateway].id, there[gateway].id} & gone}
        if conflicts and policy == "FAIL":
            return {}, *({gateway: some[gateway].customer for gateway in conflicts} for some in (moving, there))
        moved, lost, won = {}, {}, {}
        for gateway, token in moving.items():
            other = there.get(gateway)
            stays = other and (token.id in gone or (other.id not in gone and policy != "KEEP_SOURCE"))
            winner, loser = (other, token) if stays else (token, other)
            if gateway in conflicts:
                lost[gateway], won[gateway] = loser.customer, winner.customer
            if loser:
                del self.tokens[loser.place]
                loser.user, loser.own = target, "MERGED"
                self.record(loser, "MERGED", "MERGED")
            if not stays:
                del self.tokens[token.place]
                moved[gateway] = token.customer
                token.user = target
                self.tokens[token.place] = token
                self.end_claim(token.place)
            self.record(winner, "MERGED")
        self.owners = {place: target if user == source else user for place, user in self.owners.items()}
        return moved, lost, won

    def reassign(self, wanted):
        """The customers that are some token's, in the order of the list."""
        refusals = {
            "INVALID": len({key for key, _ in wanted}) < len(wanted),
            "NOT_FOUND": any(key not in self.owners for key, _ in wanted),
            "ERASED": any(user in self.erased for _, user in wanted),
        }
        if refusal := next((code for code, is_due in refusals.items() if is_due), None):
            raise RefusalError(refusal)
        changed = {(user, key[0]) for key, to in wanted if self.owners[key] != to for user in (self.owners[key], to)}
        rivals = {place: [self.tokens[place]] if place in self.tokens else [] for place in changed}
        goals = dict(wanted)
        moving = [token for token in self.tokens.values() if goals.get(token.key, token.user) != token.user]
        for token in sorted(moving, key=lambda token: list(goals).index(token.key)):
            rivals[token.place].remove(token)
            rivals[goals[token.key], token.gateway].append(token)
        alive = {token.id for token in self.tokens.values() if self.reason(token) != "GATEWAY_DELETED"}
        if any(sum(token.id in alive for token in some) > 1 for some in rivals.values()):
            raise RefusalError("ALREADY_EXISTS")
        self.owners |= goals
        for place in changed:
            self.tokens.pop(place, None)
        for place, some in rivals.items():
            for token in some:
                if token.place != place and token is min(some, key=lambda each: each.id not in alive):
                    self.end_claim(place)
                token.user = place[0]
                self.record(token, "REASSIGNED", "mix-up")
            if some:
                self.tokens[place] = min(some, key=lambda token: token.id not in alive)
        current = {token.key for token in self.tokens.values()}
        return [key[1] if key in current else None for key, _ in wanted]

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


def late(time):
    """The second of a report that came late; NOW for what happened in this life."""
    return time and (time.second if time.year == 2020 else NOW)


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
        self.base = "2020-02-02T00:00:{:02}Z"
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
            self.model.edit(found, {"isActive": True}, confirms=True)

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

    @rule(gateway=gateways, customer=customers, reason=st.sampled_from(["USER_REQUEST", "FRAUD", "OTHER"]))
    def deactivate_customer(self, gateway, customer, reason):
        payload = self.run(self.graph.deactivate_customer(gateway, customer, reason=reason))
        token = self.model.by_customer(gateway, customer)
        assert (payload["gatewayToken"] or {"id": None})["id"] == (token and token.id)
        if token and token.customer == customer:
            self.model.deactivate(token, reason)

    @rule(gateway=gateways, customer=customers, second=seconds)
    def gone_at_gateway(self, gateway, customer, second):
        payload = self.run(self.graph.deactivate_customer(gateway, customer, occurredAt=self.time(second)))
        token = self.model.by_customer(gateway, customer)
        assert (payload["gatewayToken"] or {"id": None})["id"] == (token and token.id)
        self.model.report((gateway, customer), "gone", second)

    @rule(gateway=gateways, customer=customers, second=seconds)
    def verify(self, gateway, customer, second):
        payload = self.run(self.graph.verify(gateway, customer, at=self.time(second)))
        token = self.model.by_customer(gateway, customer)
        assert code_of(payload) == (None if token else "NOT_FOUND")
        self.model.report((gateway, customer), "exists", second)

    def time(self, second):
        return None if second is None else self.base.format(second)

    @rule(wanted=st.lists(st.tuples(st.tuples(gateways, customers), users), min_size=1, max_size=3))
    def reassign(self, wanted):
        payload = self.run(self.graph.reassign(*((*key, user) for key, user in wanted), reason="mix-up"))
        found, code = predicted(self.model.reassign, wanted)
        assert code in {code for code, _ in problems(payload)} | {None}
        assert bool(problems(payload)) == (code is not None)
        assert [token and token["gatewayCustomerId"] for token in payload["gatewayTokens"]] == (
            found or [None] * len(wanted)
        )

    @rule(user=users, gateway=gateways, is_mine=st.booleans())
    def release(self, user, gateway, is_mine):
        key = self.model.claims.get((user, gateway), "none")
        released = self.run(self.graph.release(user, gateway, key if is_mine else "another"))["released"]
        assert released is (is_mine and key != "none")
        if released:
            self.model.end_claim((user, gateway))

    @rule(user=users, gateway=gateways)
    def claim(self, user, gateway):
        payload = self.run(self.graph.claim(user, gateway, leaseSeconds=300))
        token, pending = self.model.tokens.get((user, gateway)), self.model.claims.get((user, gateway))
        if token and self.model.reason(token) != "GATEWAY_DELETED":
            assert (payload["gatewayToken"]["id"], payload["claim"]) == (token.id, None)
        elif user in self.model.erased:
            assert code_of(payload) == "ERASED"
        else:
            key = payload["claim"]["idempotencyKey"]
            assert payload["claim"]["acquired"] == (pending is None)
            assert payload["claim"]["replaces"] == (token and token.customer)
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
        before = {token.key: self.model.former(token) for token in self.model.tokens.values()}
        payload = self.run(self.graph.merge(guest, into, onConflict=policy, dryRun=dry))
        outcome, code = predicted((copy.deepcopy(self.model) if dry else self.model).merge, guest, into, policy)
        if code:
            assert code_of(payload) == code
            return
        moved, conflicts, winners = outcome
        former = {token["gateway"]: set(token["formerGatewayCustomerIds"]) for token in payload["conflicts"]}
        assert former == {gateway: before[gateway, customer] for gateway, customer in conflicts.items()}
        assert {token["gateway"]: token["gatewayCustomerId"] for token in payload["moved"]} == moved
        assert {token["gateway"]: token["gatewayCustomerId"] for token in payload["conflicts"]} == conflicts
        assert {token["gateway"]: token["gatewayCustomerId"] for token in payload["winners"]} == winners
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
    def confirm(self, user):
        listed = [key for key, was in self.model.to_erase.items() if was == user and key not in self.model.owners]
        assert self.run(self.graph.confirm(*listed))["confirmedCount"] == len(listed)
        for key in listed:
            del self.model.to_erase[key]
            self.model.facts.pop(key, None)

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
                late(row["last_verified_at"]),
                row["deactivation_reason"] == "GATEWAY_DELETED" and late(row["deactivated_at"]),
                row["version"],
            )
            for row in rows
        }
        assert stored == {
            token.id: (
                *token.place,
                token.customer,
                token.description,
                self.model.active(token),
                self.model.reason(token),
                self.model.facts[token.key].exists and min(self.model.facts[token.key].exists, NOW),
                self.model.reason(token) == "GATEWAY_DELETED" and min(self.model.facts[token.key].gone, NOW),
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
        by_key = {token.key: token.id for token in self.model.tokens.values()}  # a former one is nobody's key
        assert [each and each["key"] for each in found[len(USERS) :]] == [by_key.get(key) for key in keys]


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
