"""Callers who read and save all the time through the running service, and write down all that they are told.

Each user has one writer at a time, who counts up in the description: so what is stored, and what is read, can be
compared with what was acknowledged.
"""

import asyncio
import itertools
import random
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from tests.faults.http import Http

_SAVE = """mutation ($input: SaveCustomerGatewayTokenInput!) {
  saveCustomerGatewayToken(input: $input) { gatewayToken { version } userErrors { code message } } }"""
_OF_USER = """query ($user: _Any!) { _entities(representations: [$user]) {
  ... on User { gatewayTokens { description gatewayCustomerId } } } }"""
_BY_CUSTOMER = """query ($customer: String!) {
  customerGatewayTokenByCustomer(gateway: "STRIPE", gatewayCustomerId: $customer) { description } }"""

AT_ONCE = 0.25  # seconds
_BEAT_SECONDS = 0.02


@dataclass(frozen=True)
class Answer:
    """What a caller was told; `error` is empty where it was what they asked for."""

    kind: str
    began: float
    seconds: float
    error: str

    @property
    def ended(self):
        return self.began + self.seconds


class User:
    """What the callers know of a user: the last count that was sent, and the last that was acknowledged."""

    def __init__(self, name):
        self.name = name
        self.customer = f"customer-of-{name}"
        self.sent = 0
        self.acknowledged = 0
        self.acknowledgements = 0
        self.is_being_saved = False


class Load:
    def __init__(self, urls, *, reads=150, saves=20, users=100):
        self.answers = []
        self.wrong = []
        self._name = f"user-{secrets.token_hex(4)}"
        self.users = []
        for _ in range(users):
            self.new_user()
        self._urls = itertools.cycle(urls)
        self._new = itertools.count()
        self._rates = {self._read: reads, self._save: saves}
        self._asking = []
        self._beats = []
        self._http = Http()

    @asynccontextmanager
    async def running(self):
        """The callers ask while this runs; at its end all have been answered."""
        async with self._http.open():
            for user in self.users:
                await self._save(user)
            self.answers.clear()
            callers = [asyncio.create_task(self._ask(what, rate)) for what, rate in self._rates.items() if rate]
            callers.append(asyncio.create_task(self._beat()))
            try:
                yield self
            finally:
                for caller in callers:
                    caller.cancel()
                await asyncio.gather(*callers, return_exceptions=True)
                await asyncio.gather(*self._asking)

    def failed(self, kind="", *, after=0.0):
        return [answer for answer in self.answers if answer.error and kind in answer.kind and answer.began >= after]

    def lost(self, *, after=0.0):
        """Those who were not told that they were refused; that may happen to anybody on a machine without time."""
        return [answer for answer in self.failed(after=after) if answer.error != "UNAVAILABLE"]

    def unexcused(self, kind="", *, after=0.0):
        """Those who asked after this time and failed for no reason of the machine's.

        Either all others who asked for the like during the last second of theirs were answered at once: so there was an
        answer to be had. Or the machine ran all of us meanwhile, as this process noticed by its own clock.
        """
        return [
            answer
            for answer in self.failed(kind, after=after)
            if self._others_were_served(answer) or self._had_time(answer)
        ]

    def _others_were_served(self, answer):
        since, until = answer.ended - 1, answer.ended - AT_ONCE
        others = [each for each in self.answers if each.kind == answer.kind and since <= each.began < until]
        slow = [each for each in others if each.error or each.seconds >= AT_ONCE]
        return len(others) > 5 and not slow

    def _had_time(self, answer):
        """Whether no beat of this process came late from a second before the answer on."""
        return all(late < AT_ONCE for time, late in self._beats if answer.began - 1 <= time <= answer.ended)

    async def _beat(self):
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _BEAT_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)
            self._beats.append((loop.time(), loop.time() - due))

    def slowest(self):
        return max(answer.seconds for answer in self.answers)

    async def differences(self, database_url):
        """Where what is stored is not what was acknowledged, and what readers saw that was older than that."""
        connection = await asyncpg.connect(database_url)
        rows = await connection.fetch(
            "select user_id, description, version, (select count(*) from customer_gateway_token_events"
            " where token_id = t.id) as lines from customer_gateway_tokens t"
        )
        await connection.close()
        stored = {row["user_id"]: row for row in rows}
        found = list(self.wrong)
        for user in self.users:
            row = stored.get(user.name)
            if row is None:
                found += [f"{user.name} is not stored"] if user.acknowledged else []
                continue
            if not user.acknowledged <= int(row["description"]) <= user.sent:
                found.append(f"{user.name} has {row['description']}, not {user.acknowledged} to {user.sent}")
            if not user.acknowledgements <= row["version"] == row["lines"] <= user.sent:
                found.append(f"{user.name} has version {row['version']} and {row['lines']} lines")
        return found

    async def _ask(self, what, rate):
        """Ask so often a second; what was missed while the machine did something else is not made up for at once."""
        while True:
            await asyncio.sleep(1 / rate)
            self._asking.append(asyncio.create_task(what()))

    async def _read(self):
        user = random.choice([user for user in self.users if user.acknowledged])
        known = user.acknowledged
        if random.random() < 0.5:
            variables = {"user": {"__typename": "User", "id": user.name}}
            data = await self._post("read", _OF_USER, variables)
            tokens = data and data["_entities"][0]["gatewayTokens"]
        else:
            data = await self._post("read", _BY_CUSTOMER, {"customer": user.customer})
            tokens = data and [token for token in [data["customerGatewayTokenByCustomer"]] if token]
        if data and (not tokens or int(tokens[0]["description"]) < known):
            self.wrong.append(f"a reader of {user.name} saw {tokens} after {known} was acknowledged")

    async def _save(self, user=None):
        """Two in three save a user again, one makes a new one."""
        if user is None and next(self._new) % 3 == 0:
            user = self.new_user()
        user = user or next(each for each in self.users if not each.is_being_saved)
        self.users.remove(user)
        self.users.append(user)  # the one that was saved longest ago comes first
        user.is_being_saved = True
        user.sent += 1
        count = user.sent
        given = {"userId": user.name, "gateway": "STRIPE", "gatewayCustomerId": user.customer}
        data = await self._post("save", _SAVE, {"input": {**given, "description": str(count)}})
        if data:
            user.acknowledged = count
            user.acknowledgements += 1
        user.is_being_saved = False

    def new_user(self):
        self.users.append(self.user(len(self.users)))
        return self.users[-1]

    def user(self, number):
        return User(f"{self._name}-{number}")

    async def _post(self, kind, query, variables):
        loop = asyncio.get_running_loop()
        began = loop.time()
        data, error = None, ""
        try:
            _, answer = await self._http.post(next(self._urls), {"query": query, "variables": variables})
            data = answer.get("data")
            if "errors" in answer:
                data, error = None, answer["errors"][0]["extensions"]["code"]
            elif kind == "save" and data["saveCustomerGatewayToken"]["userErrors"]:
                data, error = None, str(data["saveCustomerGatewayToken"]["userErrors"])
        except (OSError, EOFError) as failure:
            error = repr(failure)
        self.answers.append(Answer(kind, began, loop.time() - began, error))
        return data
