"""What can be done with tokens, by whom. One `Tokens` object serves one caller."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, NamedTuple, TypeVar
from uuid import NAMESPACE_URL, uuid5

from uuid_utils import uuid7

from graphql_api.domain import token as tokens
from graphql_api.domain import values
from graphql_api.domain.caller import Caller, Permission
from graphql_api.domain.errors import Code, ForbiddenError, InputError, Problem, UnavailableError
from graphql_api.domain.inputs import Gateways, Save, Update
from graphql_api.domain.token import Action, Changes, DeactivationReason, Edit, Token
from graphql_api.storage.connection import ConnectionLostError, Row
from graphql_api.storage.pool import RETRY_WINDOW_SECONDS
from graphql_api.storage.replicas import ReplicaReads
from graphql_api.storage.selects import JsonField
from graphql_api.storage.tokens import Columns, ConflictError, Page, Pair, TokenStore

__all__ = ["Claimed", "Lease", "Saved", "Tokens", "erased_problem", "idempotency_key", "retry_on_conflict"]

T = TypeVar("T")

_ATTEMPTS = 1000  # each lost race is one that somebody else won, so this many are lost in a row by no accident


class Saved(NamedTuple):
    """A token as it is now, and whether it was made just now."""

    token: Token
    created: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to create a customer at the gateway, for a short time."""

    idempotency_key: str
    expires_at: datetime
    acquired: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """The customer that is there already, or the lease on creating it."""

    token: Token | None = None
    lease: Lease | None = None


async def retry_on_conflict(attempt: Callable[[], Awaitable[T]]) -> T:
    """What the attempt answers once no other change comes between its reading and its writing."""
    began = monotonic()
    for _ in range(_ATTEMPTS):
        try:
            return await attempt()
        except ConflictError:
            continue
        except ConnectionLostError:  # what was written is found by the next attempt, and harmless to repeat
            if monotonic() - began > RETRY_WINDOW_SECONDS:
                raise
    raise UnavailableError("Too many others are changing the same token.")


class Tokens:
    """The tokens as one caller may read and change them.

    What is only to be shown is read by `reads`, which may be a replica's, until the caller changes something.
    """

    def __init__(
        self, store: TokenStore, caller: Caller, gateways: Gateways, reads: TokenStore | ReplicaReads | None = None
    ) -> None:
        self.store = store
        self.caller = caller
        self.gateways = gateways
        self.reads = reads or store

    @property
    def actor(self) -> str:
        """Who is written into the history."""
        return self.caller.subject or "anonymous"

    # --- reads

    async def by_ids(self, ids: Sequence[str], columns: Columns = None) -> dict[str, Token]:
        """Tokens by id in any spelling; what is not there, or not the caller's to see, is left out alike."""
        self.caller.authorize("Query.customerGatewayToken")
        known = {text: token_id for text in ids if (token_id := values.token_id(text)) is not None}
        if not known:
            return {}
        found = await self.reads.by_ids(list(known.values()), columns, coalesce=self.caller.has(Permission.READ))
        return {text: found[token_id] for text, token_id in known.items() if self._sees(found.get(token_id))}

    async def by_users_and_gateways(self, pairs: Sequence[Pair], columns: Columns = None) -> dict[Pair, Token]:
        """Tokens by (user id, gateway in any spelling)."""
        self.caller.authorize("User.gatewayToken")
        known = {
            (user_id, text): (user_id, gateway)
            for user_id, text in pairs
            if (gateway := self.gateways.key(text)) is not None and values.is_well_formed(user_id)
        }
        if not known:
            return {}
        coalesce = self.caller.has(Permission.READ)
        found = await self.reads.by_users_and_gateways(list(known.values()), columns, coalesce=coalesce)
        return {pair: found[key] for pair, key in known.items() if self._sees(found.get(key))}

    async def by_customers(self, pairs: Sequence[Pair], columns: Columns = None) -> dict[Pair, Token]:
        """Tokens by (gateway in any spelling, gateway customer id), the current or a former one."""
        self.caller.authorize("Query.customerGatewayTokenByCustomer")
        known = {
            (text, customer): (gateway, customer)
            for text, customer in pairs
            if (gateway := self.gateways.key(text)) is not None and values.is_well_formed(customer)
        }
        owner = None if self.caller.has(Permission.READ) else self.caller.subject
        found = await self.reads.by_customers(list(known.values()), columns, owner=owner) if known else {}
        return {pair: found[key] for pair, key in known.items() if self._sees(found.get(key))}

    def unreadable(self, user_ids: Sequence[str]) -> dict[str, ForbiddenError]:
        """Those of these users whose tokens the caller may not read, and why."""
        found: dict[str, ForbiddenError] = {}
        if not self.caller.has(Permission.READ):
            for user_id in user_ids:
                try:
                    self.caller.authorize_read(user_id)
                except ForbiddenError as error:
                    found[user_id] = error
        return found

    async def of_users(self, user_ids: Sequence[str], columns: Columns = None) -> dict[str, list[Token]]:
        """The tokens of users whom the caller may read, each user's by gateway; users without one are left out."""
        known = self._readable(user_ids)
        return await self.reads.of_users(known, columns, coalesce=self.caller.has(Permission.READ)) if known else {}

    async def of_users_as_json(self, user_ids: Sequence[str], fields: tuple[JsonField, ...]) -> dict[str, str]:
        """The same as the JSON text of a list of objects with these fields."""
        known = self._readable(user_ids)
        return (
            await self.reads.of_users_as_json(known, fields, coalesce=self.caller.has(Permission.READ)) if known else {}
        )

    def _readable(self, user_ids: Sequence[str]) -> list[str]:
        if self.caller.has(Permission.READ) and values.is_well_formed("".join(user_ids)):
            return list(dict.fromkeys(user_ids))
        return [
            user_id
            for user_id in dict.fromkeys(user_ids)
            if values.is_well_formed(user_id) and self.caller.may_read(user_id)
        ]

    async def former_ids(self, found: Sequence[Token]) -> dict[Pair, list[str]]:
        """By (user id, gateway), what the users of these tokens were called at the gateway before, oldest first."""
        self.caller.authorize("CustomerGatewayToken.formerGatewayCustomerIds")
        return await self.reads.former_ids(found)

    async def history(self, token_ids: Sequence[str], *, size: int, before: int | None) -> dict[str, list[Row]]:
        """By token id, at most `size` lines of history older than this version, newest first."""
        self.caller.authorize("CustomerGatewayToken.history")
        return await self.reads.history(token_ids, size=size, before=before)

    async def page(
        self,
        filters: Mapping[str, Any],
        *,
        size: int,
        after: tuple[datetime, str] | None,
        before: tuple[datetime, str] | None,
        backwards: bool,
    ) -> Page:
        """Tokens in the order of their making: one user's, or with the right to it everybody's."""
        self.authorize_list(filters)
        return await self.reads.page(filters, size=size, after=after, before=before, backwards=backwards)

    async def count(self, filters: Mapping[str, Any]) -> int:
        """How many tokens there are."""
        self.authorize_list(filters)
        return await self.reads.count(filters)

    def authorize_list(self, filters: Mapping[str, Any]) -> None:
        """Go on only where the caller may list with these filters."""
        if "user_id" in filters:
            self.caller.authorize_read(filters["user_id"])
        else:
            self.caller.require(Permission.ADMIN)

    # --- changes of one token

    async def save(self, save: Save) -> Saved:
        """Create or update the token of this user at this gateway.

        Raises:
            InputError: ALREADY_EXISTS, CUSTOMER_TAKEN, STALE or ERASED.
        """
        self.caller.authorize("Mutation.saveCustomerGatewayToken")
        return await retry_on_conflict(lambda: self._save(save))

    async def _save(self, save: Save) -> Saved:
        reading = await self.store.read_at(save.user_id, save.gateway)
        if reading.token is not None:
            event = _saved(reading.token, save, reading.now)
            if event is None:
                return Saved(reading.token, created=False)
            if event.action is not Action.REPLACED:
                return Saved(await self.store.change(reading.token, event, self.actor), created=False)
        [result] = await self._save_all([save])
        if not isinstance(result, InputError):
            return result
        try:
            raise result
        finally:
            del result  # or it and this frame, to which its traceback leads, would be a cycle

    async def save_many(self, saves: Sequence[Save], *, abort: bool) -> list[Saved | InputError]:
        """Save one after another in one transaction; where `abort` is set, one that is refused refuses all."""
        self.caller.authorize("Mutation.saveCustomerGatewayTokens")
        return await retry_on_conflict(lambda: self._save_all(saves, abort=abort)) if saves else []

    async def _save_all(self, saves: Sequence[Save], *, abort: bool = False) -> list[Saved | InputError]:
        async with self.store.transaction(save.user_id for save in saves) as store:
            batch = Batch(
                now=await store.now(),
                stored=await store.lock_at({(save.user_id, save.gateway) for save in saves}),
                owners=await store.owners(list({(save.gateway, save.customer) for save in saves})),
                erased=await store.erased({save.user_id for save in saves}),
            )
            results = [batch.save(save) for save in saves]
            if not (abort and any(isinstance(result, InputError) for result in results)):
                await store.write(batch.changes, self.actor)
        return results

    async def update(self, update: Update) -> Token:
        """Change a token.

        Raises:
            InputError: NOT_FOUND, STALE or CUSTOMER_TAKEN.
        """
        self.caller.authorize("Mutation.updateCustomerGatewayToken")
        return await retry_on_conflict(lambda: self._update(update))

    async def _update(self, update: Update) -> Token:
        token, now = await self._read(update.id)
        _expect(token, update.expected_version)
        event = tokens.edited(token, update.edit, now)
        if event is None:
            return token
        if event.action is not Action.REPLACED:
            return await self.store.change(token, event, self.actor)
        key = (token.gateway, event.token.gateway_customer_id)
        async with self.store.transaction([token.user_id]) as store:
            locked = (await store.lock_at([(token.user_id, token.gateway)])).get((token.user_id, token.gateway))
            if locked != token:
                raise ConflictError
            if (await store.owners([key])).get(key, token.user_id) != token.user_id:
                raise taken("gatewayCustomerId")
            changes = Changes()
            changes.change(token, event)
            await store.write(changes, self.actor)
        return event.token

    async def activate(self, token_id: str, expected_version: int | None) -> Token:
        """Make a token active.

        Raises:
            InputError: NOT_FOUND or STALE.
        """
        edit = Edit(is_active=True)
        return await self.update(Update(id=values.token_id(token_id), edit=edit, expected_version=expected_version))

    async def deactivate(self, token_id: str, reason: DeactivationReason, expected_version: int | None) -> Token:
        """Make a token inactive, for this reason.

        Raises:
            InputError: NOT_FOUND or STALE.
        """
        self.caller.authorize("Mutation.deactivateCustomerGatewayToken")

        async def attempt() -> Token:
            token, now = await self._read(values.token_id(token_id))
            _expect(token, expected_version)
            event = tokens.deactivated(token, reason, now)
            return token if event is None else await self.store.change(token, event, self.actor)

        return await retry_on_conflict(attempt)

    async def deactivate_customer(
        self,
        gateway: str,
        customer: str,
        reason: DeactivationReason,
        occurred_at: datetime | None,
        precision: timedelta = timedelta(0),
    ) -> Token | None:
        """The gateway says that this customer is gone. None where it is unknown, which is no error.

        Args:
            gateway: where the customer is
            customer: its identifier there
            reason: why the token becomes inactive
            occurred_at: when it happened; now where that is not known
            precision: how much later it may have happened, by a clock that tells no more
        """
        self.caller.authorize("Mutation.deactivateGatewayCustomer")

        async def attempt() -> Token | None:
            token, now = await self._customer(gateway, customer)
            if token is None or token.gateway_customer_id != customer:
                return token
            at = occurred_at or now
            if at < token.activated_at < at + precision:
                at = token.activated_at
            event = tokens.deactivated_at_gateway(token, reason, at, now)
            if event is not None:
                return await self.store.change(token, event, self.actor)
            moved = tokens.earlier_deactivation(token, reason, at)
            if moved is not None:
                await self.store.move_deactivation(token, moved)
            return moved or token

        return await retry_on_conflict(attempt)

    async def verify_customer(self, gateway: str, customer: str, at: datetime | None) -> Token:
        """The gateway says that this customer exists.

        Raises:
            InputError: NOT_FOUND.
        """
        self.caller.authorize("Mutation.verifyGatewayCustomer")

        async def attempt() -> Token:
            token, now = await self._customer(gateway, customer)
            if token is None:
                message = f"No token has the customer {customer} at {gateway}: save it first."
                raise InputError([Problem(Code.NOT_FOUND, message, ("gatewayCustomerId",))])
            event = None if token.gateway_customer_id != customer else tokens.verified(token, at or now, now)
            return token if event is None else await self.store.change(token, event, self.actor)

        return await retry_on_conflict(attempt)

    async def delete(self, token_id: str, expected_version: int | None) -> str | None:
        """Delete a token. Answers whose it was, unless they were erased; the same again for one that is gone.

        Raises:
            InputError: NOT_FOUND for one that never was, or STALE.
        """
        self.caller.authorize("Mutation.deleteCustomerGatewayToken")
        return await retry_on_conflict(lambda: self._delete(values.token_id(token_id), expected_version))

    async def _delete(self, token_id: str | None, expected_version: int | None) -> str | None:
        token = (await self.store.read(token_id)).token if token_id else None
        if token is None:
            was_there, user_id = await self.store.departed(token_id) if token_id else (False, None)
            if not was_there:
                raise _not_found()
            return user_id
        _expect(token, expected_version)
        async with self.store.transaction([token.user_id]) as store:
            if (await store.lock_at([(token.user_id, token.gateway)])).get((token.user_id, token.gateway)) != token:
                raise ConflictError
            changes = Changes()
            changes.delete(tokens.gone(token, Action.DELETED, await store.now()))
            await store.write(changes, self.actor)
        return token.user_id

    async def claim(self, user_id: str, gateway: str, lease_seconds: int) -> Claimed:
        """Who creates this user's first customer at the gateway, with which idempotency key?

        Raises:
            InputError: ERASED.
        """
        self.caller.authorize("Mutation.claimGatewayCustomer")
        return await retry_on_conflict(lambda: self._claim(user_id, gateway, lease_seconds))

    async def _claim(self, user_id: str, gateway: str, lease_seconds: int) -> Claimed:
        stored = (await self.store.read_at(user_id, gateway)).token
        if stored is not None:
            return Claimed(stored)
        claim = await self.store.claim(user_id, gateway, lease_seconds)
        if claim is not None:
            key = idempotency_key(user_id, gateway, claim.generation)
            return Claimed(lease=Lease(key, claim.expires_at, claim.acquired))
        if await self.store.erased([user_id]):
            raise InputError([erased_problem("userId")])
        raise ConflictError  # a customer was saved meanwhile

    async def _read(self, token_id: str | None) -> tuple[Token, datetime]:
        if token_id is None:
            raise _not_found()
        reading = await self.store.read(token_id)
        if reading.token is None:
            raise _not_found()
        return reading.token, reading.now

    async def _customer(self, gateway: str, customer: str) -> tuple[Token | None, datetime]:
        found = (await self.store.by_customers([(gateway, customer)], frozenset({"id"}))).get((gateway, customer))
        if found is None:
            return None, await self.store.now()
        reading = await self.store.read(found.id)
        if reading.token is None:
            raise ConflictError
        return reading.token, reading.now

    def _sees(self, token: Token | None) -> bool:
        return token is not None and self.caller.may_read(token.user_id)


class Batch:
    """Saves one after another, on what was read at the beginning of the transaction and what the saves before did.

    Args:
        now: the time of the changes
        stored: the tokens that are there, by user and gateway
        owners: the users whose identifiers are taken, by gateway and identifier
        erased: the users who were erased
        action: what the history calls every change, where that is not to be told from what is changed
    """

    def __init__(
        self,
        *,
        now: datetime,
        stored: dict[Pair, Token],
        owners: dict[Pair, str],
        erased: set[str],
        action: Action | None = None,
    ) -> None:
        self.changes = Changes()
        self.stored = stored
        self.owners = owners
        self._now = now
        self._erased = erased
        self._action = action

    def save(self, save: Save, born: tokens.Event | None = None) -> Saved | InputError:
        """What becomes of this save; what it changes is added to the changes.

        Args:
            save: the token as it shall be
            born: what is created where nothing is stored, if not a token that begins now
        """
        try:
            return self._save(save, born)
        except InputError as refused:
            return refused.with_traceback(None)  # which leads to the list that it comes into

    def _save(self, save: Save, born: tokens.Event | None) -> Saved:
        place, customer = (save.user_id, save.gateway), (save.gateway, save.customer)
        token = self.stored.get(place)
        event = born or _created(save, self._now) if token is None else _saved(token, save, self._now)
        if token is None and save.user_id in self._erased:
            raise InputError([erased_problem("userId")])
        if event is None:
            return Saved(self.stored[place], created=False)
        if self.owners.setdefault(customer, save.user_id) != save.user_id:
            raise taken("gatewayCustomerId")
        if self._action is not None:
            event = event._replace(action=self._action)
        new = self.changes.create(event) if token is None else self.changes.change(token, event)
        self.stored[place] = new
        return Saved(new, created=token is None)


def idempotency_key(user_id: str, gateway: str, generation: int) -> str:
    """The key that every caller hands to the gateway for this user's pending customer."""
    return str(uuid5(NAMESPACE_URL, f"gateway-customer:{generation}:{gateway}:{user_id}"))


def _created(save: Save, now: datetime) -> tokens.Event:
    if save.expected_version is not None:
        raise InputError([_stale(f"This user has no token at {save.gateway}: leave expectedVersion out to create it.")])
    return tokens.created(str(uuid7()), save.user_id, save.gateway, save.edit, now, Action.CREATED)


def _saved(token: Token, save: Save, now: datetime) -> tokens.Event | None:
    """What this save makes of the stored token; None where it changes nothing."""
    _expect(token, save.expected_version)
    if token.gateway_customer_id not in {save.customer, save.replaces}:
        message = (
            f"This user already has the customer {token.gateway_customer_id} at {token.gateway}:"
            " use that one, or name it in `replaces` to put this one in its place."
        )
        raise InputError([Problem(Code.ALREADY_EXISTS, message, ("gatewayCustomerId",))], token)
    return tokens.edited(token, save.edit, now) if save.updates else None


def _expect(token: Token, version: int | None) -> None:
    if version is not None and version != token.version:
        message = f"Somebody else changed this token: it has version {token.version}, not {version}. Read it again."
        raise InputError([_stale(message)], token)


def _stale(message: str) -> Problem:
    return Problem(Code.STALE, message, ("expectedVersion",))


def _not_found() -> InputError:
    return InputError([Problem(Code.NOT_FOUND, "No token has this id.", ("id",))])


def taken(field: str) -> InputError:
    """The identifier at this field is another user's."""
    message = "This gateway customer belongs, or belonged, to another user: check which user is signed in."
    return InputError([Problem(Code.CUSTOMER_TAKEN, message, (field,))])


def erased_problem(field: str) -> Problem:
    """The user at this field was erased."""
    message = "This user was erased, so nothing of theirs may be saved until an admin calls liftUserErasure."
    return Problem(Code.ERASED, message, (field,))
