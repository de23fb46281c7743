"""Tokens from files, by the rules of the mutations: what is new goes in together, the rest one after another."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from itertools import islice
from operator import attrgetter
from time import monotonic
from types import NoneType
from typing import Any, Final, cast

import orjson
from uuid_utils import uuid7

from graphql_api.bulk.identifiers import identifier
from graphql_api.bulk.records import Line, Record, Rejection, Tally, Unreadable, values_of
from graphql_api.domain import token as tokens
from graphql_api.domain import values
from graphql_api.domain.errors import Code, InputError, Problem
from graphql_api.domain.facts import NO_FACTS, Facts
from graphql_api.domain.inputs import Gateways, Save
from graphql_api.domain.token import REPORTED, Action, DeactivationReason, Edit, Event, Given, Token
from graphql_api.domain.values import Problems, invalid
from graphql_api.service.problems import taken
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.service.saving import BatchSaver
from graphql_api.storage import staging
from graphql_api.storage.bulkheads import ConflictError
from graphql_api.storage.changes import TokenTransaction
from graphql_api.storage.connection import ConnectionLostError
from graphql_api.storage.reads import Pair
from graphql_api.storage.selects import ALL
from graphql_api.storage.staging import StagedToken
from graphql_api.storage.tokens import MAX_BULK_LOCKS, TokenStore

# A chunk is locked and committed together, which takes about 15 ms. Meanwhile, claims, merges and erasures of less
# than half of all other users wait, and so do the requests queued behind them.
MAX_CHUNK_LINES: Final = MAX_BULK_LOCKS // 2  # each has a user and a customer
_MAX_CHUNK_CHARACTERS: Final = 4_000_000
_MAX_CONCURRENT_CHUNKS: Final = 2  # one is written, the next is staged


async def import_tokens(
    store: TokenStore,
    gateways: Gateways,
    records: Iterator[Line],
    *,
    dry_run: bool = False,
    max_lines: int = MAX_CHUNK_LINES,
) -> AsyncGenerator[Tally]:
    """Save these records in their order, in chunks of at most `max_lines`; while one is written, the next is staged.

    That takes two connections. In a dry run each chunk is written and rolled back: a line counts for the later lines
    of its chunk only.
    """
    parser, writer = Parser(gateways), _Writer(store, dry_run=dry_run)
    began, started = await store.now(), monotonic()

    async def read(before: "asyncio.Task[_Chunk | None] | None") -> "_Chunk | None":
        if before is not None and await before is None:
            return None
        now = began + timedelta(seconds=monotonic() - started)
        return await asyncio.to_thread(_read_chunk, records, parser, now, max_lines)

    async def save(reading: "asyncio.Task[_Chunk | None]", turn: asyncio.Event) -> Tally | None:
        if (chunk := await reading) is None:
            return None
        try:
            return await writer.write(chunk, turn)
        except (ConflictError, ConnectionLostError):
            await turn.wait()  # the time until then is none of the races
            return await retry_on_conflict(partial(writer.write, chunk, turn))

    reading: asyncio.Task[_Chunk | None] | None = None
    under_way: deque[tuple[asyncio.Task[_Chunk | None], asyncio.Event, asyncio.Task[Tally | None]]] = deque()
    try:
        while True:
            while len(under_way) < _MAX_CONCURRENT_CHUNKS:
                reading, turn = asyncio.create_task(read(reading)), asyncio.Event()
                under_way.append((reading, turn, asyncio.create_task(save(reading, turn))))
            _, turn, saving = under_way[0]
            turn.set()
            if (tally := await saving) is None:
                return
            under_way.popleft()
            yield tally
    finally:
        tasks: list[asyncio.Task[Any]] = [task for reading, _, saving in under_way for task in (reading, saving)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- from records to tokens


@dataclass(slots=True)
class _Chunk:
    """Lines that are written in one transaction: the tokens of those that can be stored, and why the others cannot."""

    last: int = 0
    records: dict[int, Record | Unreadable] = field(default_factory=dict[int, Record | Unreadable])
    rows: dict[int, StagedToken] = field(default_factory=dict[int, StagedToken])
    # Why the customer ids of these lines cannot be new ones; a token may have them from before.
    refused_as_new: dict[int, InputError] = field(default_factory=dict[int, InputError])
    # Not the exceptions: their tracebacks lead to the frame that has this chunk, and only a collection frees a cycle.
    refused: list[Rejection] = field(default_factory=list[Rejection])


def _read_chunk(records: Iterator[Line], parser: "Parser", now: datetime, max_lines: int) -> _Chunk | None:
    chunk = _Chunk()
    seen: set[tuple[str, ...]] = set()
    characters = locks = 0
    for number, record in islice(records, max_lines):
        chunk.last = number
        chunk.records[number] = record
        try:
            row = parser.row(number, record, now)
        except InputError as refused:
            chunk.refused.append(Rejection(number, refused.problems, values_of(record)))
            continue
        if (refused := parser.refused_as_new(row)) is not None:
            chunk.refused_as_new[number] = refused
            row = row._replace(deferred=True)
        keys = _keys(row)
        chunk.rows[number] = row if seen.isdisjoint(keys) else row._replace(deferred=True)
        seen.update(keys)
        characters += len(row.description or "") + len(row.metadata or "")
        own_locks = 2 + len(row.former_ids or ())
        locks += own_locks
        if characters > _MAX_CHUNK_CHARACTERS or locks + own_locks > MAX_BULK_LOCKS:  # with another line like this one
            break
    return chunk if chunk.last else None


def _keys(row: StagedToken) -> list[tuple[str, ...]]:
    """What no two tokens have in common."""
    keys: list[tuple[str, ...]] = [(row.user_id, row.gateway, ""), (row.gateway_customer_id, row.gateway)]
    keys += [(name, row.gateway) for name in row.former_ids or ()]
    return [*keys, (row.id,)] if row.has_id else keys


class Parser:
    """Checks records as the mutations check their inputs."""

    def __init__(self, gateways: Gateways) -> None:
        self._listed_id = gateways.listed_customer_id
        self._gateway = lru_cache(maxsize=1000)(gateways.parse)
        self._customer_id = lru_cache(maxsize=1000)(partial(_customer_id_at, gateways))
        self._new_id = gateways.customer_id
        self._has_forms = gateways.id_patterns.keys()

    def refused_as_new(self, row: StagedToken) -> InputError | None:
        """Why the customer id of a row cannot be a new one."""
        if row.gateway in self._has_forms:
            try:
                self._new_id(row.gateway, row.gateway_customer_id)
            except InputError as refused:
                return InputError([replace(each, field=("gatewayCustomerId",)) for each in refused.problems])
        return None

    def row(self, line: int, record: Record | Unreadable, now: datetime) -> StagedToken:
        """The row of a record; what it does not say of a token's past is made up.

        Raises:
            InputError: with all that is wrong.
        """
        if isinstance(record, Unreadable):
            raise InputError([record.problem])
        problems = Problems()
        _check_kinds(problems, record)
        user_id = problems.parse("userId", _user_id, record.get("userId"))
        gateway = problems.parse("gateway", self._gateway, record["gateway"])
        customer_id = self._customer_id(gateway or "")
        customer = problems.parse("gatewayCustomerId", customer_id, record.get("gatewayCustomerId"))
        description = metadata = None
        if "description" in record:
            description = problems.parse("description", values.description, record["description"])
        if "metadata" in record:
            metadata = problems.parse("metadata", _given_metadata, record["metadata"])
        is_active = record.get("isActive", True)
        if is_active is None:
            problems.add(Code.INVALID, _KINDS["isActive"][1], "isActive")
        past = _EMPTY_PAST if _PAST.keys().isdisjoint(record) else _past(problems, record, now)
        for former_id in past.get("former_ids") or ():  # which may be from before today's form
            problems.parse("formerGatewayCustomerIds", partial(self._listed_id, gateway or ""), former_id)
        if user_id is None or gateway is None or customer is None or is_active is None or not problems.are_none:
            raise problems.refused()
        updated_at = past.get("updated_at") or max(now, past.get("created_at", now))
        created_at = past.get("created_at") or min(now, updated_at)
        return StagedToken(
            line=line,
            deferred=False,
            has_id="id" in past,
            has_description="description" in record,
            has_metadata="metadata" in record,
            has_is_active="isActive" in record,
            has_deactivated_at="deactivated_at" in past or "updated_at" in past,
            former_ids=[name for name in past["former_ids"] if name != customer] if "former_ids" in past else None,
            id=past.get("id") or str(uuid7()),
            user_id=user_id,
            gateway=gateway,
            gateway_customer_id=customer,
            description=description,
            metadata=None if metadata is None else orjson.dumps(metadata).decode(),
            is_active=is_active,
            created_at=created_at,
            updated_at=updated_at,
            version=past.get("version", 1),
            activated_at=past.get("activated_at", created_at),
            deactivated_at=None if is_active else past.get("deactivated_at", updated_at),
            deactivation_reason=None if is_active else past.get("deactivation_reason", DeactivationReason.OTHER.value),
            last_verified_at=past.get("last_verified_at"),
        )


def _given_metadata(value: Any) -> dict[str, Any] | None:
    """Metadata as a request would have it, whose integers of more than 64 bits are doubles.

    Raises:
        InputError: as `values.metadata`; for an integer that no double is.
    """
    try:
        return values.metadata(value)
    except InputError:
        return values.metadata(_with_doubles(value, values.MAX_METADATA_DEPTH))


def _with_doubles(value: Any, depth: int) -> Any:
    if isinstance(value, dict) and depth:
        return {key: _with_doubles(each, depth - 1) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list) and depth:
        return [_with_doubles(each, depth - 1) for each in cast("list[Any]", value)]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        with suppress(OverflowError):
            return float(value)
    return value


def _check_kinds(problems: Problems, record: Record) -> None:
    """Go on only if every value is of the kind that its rules are for.

    Raises:
        InputError: with all that are not.
    """
    for name, value in record.items():
        if name in _KINDS and type(value) not in _KINDS[name][0]:
            problems.add(Code.INVALID, _KINDS[name][1], name)
    if "gateway" not in record:
        problems.add(Code.INVALID, "gateway is required.", "gateway")
    problems.check()


def _customer_id_at(gateways: Gateways, gateway: str) -> Callable[[object], str]:
    return lambda value: gateways.listed_customer_id(gateway, identifier(value, "gatewayCustomerId"))


def _user_id(value: object) -> str:
    return values.user_id(identifier(value, "userId"))


def _past(problems: Problems, record: Record, now: datetime) -> Mapping[str, Any]:
    """What a record says of the token's past, by column."""
    past = {
        column: problems.parse(name, parse, record[name])
        for name, (column, parse) in _PAST.items()
        if record.get(name) is not None
    }
    for name in ("deactivatedAt", "deactivationReason"):
        if record.get(name) is not None and record.get("isActive") is not False:
            problems.add(Code.INVALID, "deactivatedAt and deactivationReason need isActive false.", name)
    for name in _TIMES:
        at = past.get(_PAST[name][0])
        if at is not None and at > now + values.MAX_AHEAD:
            problems.add(Code.INVALID, f"{name} is in the future: correct it.", name)
    created_at, updated_at = past.get("created_at"), past.get("updated_at")
    if created_at and updated_at and updated_at < created_at:
        problems.add(Code.INVALID, "updatedAt must not be before createdAt.", "updatedAt")
    return past


def _id(text: str) -> str:
    token_id = values.token_id(text)
    if token_id is None:
        raise invalid("id must be a UUID. Omit it to get a new one.")
    return token_id


def _version(number: int) -> int:
    if not 1 <= number < 2**31:
        raise invalid("version must be at least 1 and below 2,147,483,648.")
    return number


def _reason(name: str) -> str:
    try:
        return DeactivationReason(name).value
    except ValueError:
        known = ", ".join(reason.value for reason in DeactivationReason)
        raise invalid(f"deactivationReason must be one of {known}.") from None


def _former_ids(names: list[Any]) -> list[str]:
    if not all(isinstance(name, str) for name in names):
        raise invalid(_KINDS["formerGatewayCustomerIds"][1])
    return list(dict.fromkeys(names))


_OPTIONAL_TEXT = (str, NoneType)
# What kind of value a record may have at a name, before the rules of its contents.
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "gateway": ((str,), "gateway is required and must be a string."),
    "description": (_OPTIONAL_TEXT, "description must be a string."),
    "isActive": ((bool, NoneType), "isActive must be true or false. Omit it for the default."),
    "id": (_OPTIONAL_TEXT, "id must be a string."),
    "version": ((int, NoneType), "version must be an integer."),
    "deactivationReason": (_OPTIONAL_TEXT, "deactivationReason must be a string."),
    "formerGatewayCustomerIds": ((list, NoneType), "formerGatewayCustomerIds must be a list of strings."),
}
_TIMES = ("createdAt", "updatedAt", "activatedAt", "deactivatedAt", "lastVerifiedAt")
_PAST: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "id": ("id", _id),
    "createdAt": ("created_at", values.instant),
    "updatedAt": ("updated_at", values.instant),
    "version": ("version", _version),
    "activatedAt": ("activated_at", values.instant),
    "deactivatedAt": ("deactivated_at", values.instant),
    "deactivationReason": ("deactivation_reason", _reason),
    "lastVerifiedAt": ("last_verified_at", values.instant),
    "formerGatewayCustomerIds": ("former_ids", _former_ids),
}
_ADVICE: Mapping[Code, str] = {
    Code.ALREADY_EXISTS: (
        "This user has another customer at this gateway, and an import replaces none. Remove the line, or replace the "
        "customer with `gateway-tokens remap`."
    ),
    Code.CUSTOMER_TAKEN: (
        "This gateway customer belongs, or belonged, to another user. Correct userId or gatewayCustomerId."
    ),
    Code.ERASED: "This user was erased. Remove the line, or have an admin call liftUserErasure first.",
}
_EMPTY_PAST: Mapping[str, Any] = {}


# --- from tokens to the tables


class _Writer:
    """Writes each chunk in a transaction. If all lines of one were new, it expects the same of the next."""

    def __init__(self, store: TokenStore, *, dry_run: bool) -> None:
        self._store = store
        self._dry_run = dry_run
        self._all_are_new = True

    async def write(self, chunk: _Chunk, turn: asyncio.Event) -> Tally:
        """Stage the lines of this chunk, and write them once it is their turn.

        Raises:
            ConflictError: not all were new, though they seemed to be, or another writer came between: write them again.
            ConnectionLostError: the connection was lost, and nothing was written.
        """
        tally = Tally(chunk.last, rejected=[*chunk.refused])
        users = {row.user_id for row in chunk.rows.values()}
        customers = {(row.gateway, row.gateway_customer_id) for row in chunk.rows.values()}
        former = {(row.gateway, name) for row in chunk.rows.values() for name in row.former_ids or ()}
        parsed = [*chunk.rows.values()]

        async def stage(store: TokenTransaction) -> None:
            await staging.stage(store, parsed)
            await turn.wait()

        async with self._store.transaction(
            users, customers=customers | former, before=stage, dry_run=self._dry_run
        ) as store:
            all_are_new, self._all_are_new = self._all_are_new, False
            facts, is_anybody_erased = await staging.known(store)
            erased = await store.erased(users) if is_anybody_erased else set[str]()
            rows = _with_facts(parsed, facts, erased)
            if rows != parsed:
                await staging.stage(store, rows, again=True)
            stored = await staging.store_new(store, rows, all_are=all_are_new)
            tally.created, tally.unchanged = stored.created, stored.unchanged
            if stored.others:
                await _write_others(store, chunk, [chunk.rows[number] for number in stored.others], erased, tally)
        self._all_are_new = not stored.unchanged and not stored.others
        tally.rejected.sort(key=attrgetter("line"))
        return tally


def _with_facts(rows: list[StagedToken], facts: Mapping[Pair, Facts], erased: set[str]) -> list[StagedToken]:
    """The rows as their gateways' latest word has them; those of erased users are to be written apart."""
    if not facts and not erased and all(row.is_active for row in rows):
        return rows
    joined = (_row_with_facts(row, facts) for row in rows)
    return [row._replace(deferred=True) if row.user_id in erased else row for row in joined]


def _row_with_facts(row: StagedToken, facts: Mapping[Pair, Facts]) -> StagedToken:
    known = facts.get((row.gateway, row.gateway_customer_id))
    if known is None and row.deactivation_reason != DeactivationReason.GATEWAY_DELETED.value:
        return row
    token = tokens.with_facts(_token(row), known or NO_FACTS)
    return row._replace(**{name: getattr(token, name) for name in REPORTED})


async def _write_others(
    store: TokenTransaction, chunk: _Chunk, rows: Sequence[StagedToken], erased: set[str], tally: Tally
) -> None:
    """Save these rows one after another, as a batch of mutations does."""
    now = await store.now()
    identifiers = {(row.gateway, name) for row in rows for name in (row.gateway_customer_id, *(row.former_ids or ()))}
    batch = BatchSaver(
        now=now,
        stored=await store.lock_at({(row.user_id, row.gateway) for row in rows}),
        customers=await store.customers(identifiers),
        erased=erased,
        action=Action.IMPORTED,
    )
    used_ids = await staging.used_ids(store, [row.id for row in rows if row.has_id])
    used = [row for row in rows if row.has_id and row.id in used_ids and (row.user_id, row.gateway) not in batch.stored]
    if await staging.have_arrived(store, used):
        raise ConflictError
    for row in rows:
        before = batch.stored.get((row.user_id, row.gateway))
        refused = _refusal(batch, row, used_ids) if before is None else None
        save = save_input(row, before)._replace(refused_as_new=chunk.refused_as_new.get(row.line))
        result = refused or batch.save(save, _import_event(row, now), _gateway_facts(row, before))
        if isinstance(result, InputError):
            tally.reject(row.line, _in_words_of_a_file(result), chunk.records[row.line])
        elif result.created:
            tally.created += 1
            used_ids.add(row.id)
            _reserve(batch, row)
        elif before is not None and result.token.version == before.version:
            tally.unchanged += 1
        else:
            tally.changed += 1
    await store.write(batch.changes, staging.ACTOR)


def _refusal(batch: BatchSaver, row: StagedToken, used_ids: set[str]) -> InputError | None:
    """Why a row cannot be a new token, besides what every save is refused for."""
    if row.has_id and row.id in used_ids:
        message = "A token has, or had, this id. Omit the id to get a new one."
        return InputError([Problem(Code.INVALID, message, ("id",))])
    owners = {batch.owners.get((row.gateway, name)) for name in row.former_ids or ()}
    return taken("formerGatewayCustomerIds") if owners - {None, row.user_id} else None


def _in_words_of_a_file(error: InputError) -> InputError:
    """The same problems with what to do about a line of a file."""
    return InputError(
        [Problem(each.code, _ADVICE.get(each.code, each.message), each.field) for each in error.problems], error.token
    )


def _reserve(batch: BatchSaver, row: StagedToken) -> None:
    former = {(row.gateway, name): row.user_id for name in row.former_ids or ()}
    batch.owners.update(former)
    batch.changes.identifiers.update(former)


def save_input(row: StagedToken, stored: Token | None) -> Save:
    """What a row saves if its user has this token at its gateway, besides what it says that the gateway said."""
    reason = DeactivationReason(row.deactivation_reason or DeactivationReason.OTHER.value)
    decides = row.has_is_active and reason is not DeactivationReason.GATEWAY_DELETED
    if stored is not None and row.has_deactivated_at:  # an older file says only how the token was
        decides = decides and not _is_outdated(row, stored)
    edit = Edit(
        gateway_customer_id=row.gateway_customer_id,
        description=Given(row.description) if row.has_description else None,
        metadata=Given(_metadata(row)) if row.has_metadata else None,
        is_active=row.is_active if decides else None,
        deactivation_reason=reason,
        deactivated_at=row.deactivated_at if row.has_deactivated_at else None,
    )
    return Save(user_id=row.user_id, gateway=row.gateway, edit=edit)


def _is_outdated(row: StagedToken, stored: Token) -> bool:
    """Whether the token was deactivated or activated after it was as the row says, or the row is of an earlier one."""
    if row.deactivated_at is None:
        return not stored.is_active and row.updated_at < stored.updated_at
    if row.created_at <= row.deactivated_at < stored.created_at and row.id != stored.id:
        return True
    activated_at = tokens.facts_of(stored).activated_at
    return activated_at is not None and row.deactivated_at < activated_at


def _gateway_facts(row: StagedToken, stored: Token | None) -> Facts:
    """What a row says that the gateway said, and when: of a deletion without a time only that it is known by now."""
    said = tokens.facts_of(_token(row))
    is_known = stored is not None and tokens.facts_of(stored).gone_at is not None
    return said._replace(gone_at=None) if is_known and not row.has_deactivated_at else said


def _import_event(row: StagedToken, now: datetime) -> Event:
    return Event(_token(row), Action.IMPORTED, row.deactivation_reason, at=now)


def _token(row: StagedToken) -> Token:
    columns: dict[str, Any] = {name: getattr(row, name) for name in ALL}
    columns["metadata"] = _metadata(row)
    return Token(**columns)


def _metadata(row: StagedToken) -> dict[str, Any] | None:
    return None if row.metadata is None else orjson.loads(row.metadata)
