"""The change feed: the history of all tokens in one order, in which a follower misses nothing.

A sequence gives each entry its position, but entries become visible when their transactions end, in another order. So a
process reads only up to a position that is settled: every transaction that can have a lower one has ended. It takes a
transaction id of its own once it sees an entry, and waits until no transaction with a lower id runs. A writer with a
position below the entry's had an id before that: writers get their id before they ask for a position, since they have
changed or created a token by then. A long transaction anywhere in the cluster delays the feed, and loses nothing.

After a failover to a standby that lacked the last commits, positions are given again, on another timeline. Cursors name
their timeline. One of an earlier timeline continues where that was last known to be settled: its follower may get some
entries again. A copy of the database, as from a dump, begins a timeline too: after the marks of the original, it has
other entries at the same positions.
"""

import asyncio
from dataclasses import dataclass
from time import monotonic

from graphql_api.domain.errors import BadInputError, ExpiredCursorError
from graphql_api.domain.filter import NO_FILTER, FeedFilter, FeedPosition
from graphql_api.storage.connection import Reads, Row, Statement
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.transaction import FORBIDDEN, TIMELINE

MAX_SCANNED = 10_000
"""Entries that one page with a filter examines at most."""

_EVENTS = "customer_gateway_token_events"
PRUNED = "pruned"
"""In place of a timeline: the row with the position up to which old entries were deleted."""
# How long a reader that has read all settled entries waits for the unsettled ones.
_SETTLE_TIMEOUT_SECONDS = 0.25
_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.002, 0.02
_MARK_SECONDS = 1.0
_MAX_POSITION = 2**62
_NEVER = float("-inf")

_NEWEST = f"select coalesce(max(position), 0) as position from {_EVENTS} where position > 0"
_LINES = f"""
    select token_id, version, user_id, gateway, gateway_customer_id, is_active, action, reason, actor, at, position
    from {_EVENTS}
    where position > 0 and position > $1 and position <= {{until}} {{wanted}}
    order by position limit $3
"""
_UNTIL = f"""coalesce((
  select position from {_EVENTS} where position > 0 and position > $1 and position <= $2
  order by position offset %d limit 1
), $2)"""
_WANTED = "and ($4::text[] is null or gateway = any($4)) and ($5::text[] is null or action = any($5))"


def _page(name: str, page: str, until: str, wanted: str) -> Statement:
    return Statement(
        name,
        f"""
        select page.*, line.* from ({page % until}) as page
        left join lateral ({_LINES.format(until="page.until", wanted=wanted)}) as line on true order by line.position
        """,
        sql_distributed=f"""
        with page as materialized ({page % "null"}), scanned as materialized (select {until} as until),
        line as materialized ({_LINES.format(until="(select until from scanned)", wanted=wanted)})
        select timeline, pruned, pruning, timelines, scanned.until, line.*
        from page cross join scanned left join line on true order by line.position
        """,
        reads=Reads.FEED,
    )


class _Statements:
    """The statements that name the timeline, by this expression. A filtered page examines `max_scanned` entries.

    `look` takes the position above which an entry makes this process take a transaction id, which it gets after the
    snapshot. The pages take the position to start after, the one to end at, a limit, and then the filter. They always
    return a row, with the timeline, the number of timelines so far, what was deleted, and the position up to which they
    read. `mark` does nothing on another timeline.
    """

    def __init__(self, timeline: str, max_scanned: int = MAX_SCANNED) -> None:
        self.look = Statement(
            "feed_look",
            f"""
            select {timeline}, pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
              pg_snapshot_xmax(pg_current_snapshot())::text::bigint, newest.position,
              case when newest.position > $1 then pg_current_xact_id()::text::bigint end
            from ({_NEWEST}) as newest
            """,
            sql_distributed=f"""
            select {timeline}, feed_settled_since(), {_MAX_POSITION}, newest.position,
              case when newest.position > $1 then (extract(epoch from clock_timestamp()) * 1000000)::bigint end
            from (select feed_newest() as position) as newest
            """,
            reads=Reads.FEED,
        )
        # Each deletion updates the row, so its transaction identifies the last one.
        page = f"""
              select {timeline} as timeline, coalesce(known.settled, 0) as pruned,
                coalesce(known.xmin::text::bigint, 0) as pruning, %s as until,
                (select 1 + count(*) from event_timelines where timeline not in ({timeline}, '{PRUNED}')) as timelines
              from (values (0)) as one left join event_timelines as known on known.timeline = '{PRUNED}'
        """
        self.page = _page("feed_page", page, "$2::bigint", "")
        self.filtered_page = _page("feed_filtered_page", page, _UNTIL % (max_scanned - 1), _WANTED)
        self.mark = Statement(
            "feed_mark",
            f"""
            insert into event_timelines as known (timeline, settled) select $1, $2 where {timeline} = $1
            on conflict (timeline) do update set settled = excluded.settled where known.settled < excluded.settled
            """,
            reads=Reads.FEED,
        )


_DATABASE_OID = "(select oid::text from pg_database where datname = current_database())"
_DATABASE = f"left(md5((select system_identifier from pg_control_system())::text || {_DATABASE_OID}), 8)"
FEED_TIMELINE = f"{TIMELINE} || '-' || {_DATABASE}"
"""The timeline of this copy of the database, as an SQL expression."""
STATEMENTS = _Statements(FEED_TIMELINE)
# A managed PostgreSQL that hides its log keeps its commits elsewhere and has no timelines.
_WITHOUT_TIMELINES = _Statements(f"'0-' || left(md5({_DATABASE_OID}), 8)")
PRECEDES = Statement(
    "feed_precedes",
    f"""
    select exists (
      select from (
        select gateway, action from {_EVENTS} where position > 0 and position <= $1
        order by position desc limit {MAX_SCANNED}
      ) as line
      where ($2::text[] is null or gateway = any($2)) and ($3::text[] is null or action = any($3))
    )
    """,
    reads=Reads.FEED,
)
_MARKED = Statement("feed_marked", "select settled from event_timelines where timeline = $1", reads=Reads.FEED)
AGE = Statement(
    "feed_age",
    f"""
    select extract(epoch from clock_timestamp() - at)::float8 from {_EVENTS}
    where position > 0 and position > $1 order by position limit 1
    """,
    reads=Reads.FEED,
)


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A page of entries, in feed order.

    Attributes:
        lines: the entries
        start: the position after which it starts
        end: the position up to which all entries were examined
        has_more: whether there are more entries, or some that were not examined
        pruned: the position up to which old entries were deleted
    """

    lines: list[Row]
    start: FeedPosition
    end: FeedPosition
    has_more: bool
    pruned: int = 0


class Feed:
    """This process's view of the feed, on the primary."""

    def __init__(self, pool: ConnectionPool, *, statements: _Statements = STATEMENTS) -> None:
        self._pool = pool
        self._sql = statements
        self._timeline = ""
        self._newest = 0
        self._settled = 0
        self._pending: tuple[int, int] | None = (
            None  # a position, and the transaction id that must have ended for it to be settled
        )
        self._marked_at, self._marked = _NEVER, 0

    @property
    def newest(self) -> int:
        """The highest position seen, settled or not."""
        return self._newest

    async def now(self) -> FeedPosition:
        """The position after the last settled entry."""
        await self._settle()
        return FeedPosition(self._timeline, self._settled)

    async def resume(self, position: FeedPosition) -> FeedPosition:
        """The position on the current timeline from which to continue at this one.

        Raises:
            BadInputError: this database has no such position.
        """
        await self.look()
        timeline = self._timeline
        if position.timeline != timeline:
            rows = await self._pool.fetch(_MARKED, position.timeline)
            return FeedPosition(timeline, min(position.position, rows[0][0]) if rows else 0)
        if position.position > self._newest:
            raise BadInputError("This cursor does not belong to this database. Start again with startAt.")
        return position

    async def page(self, after: FeedPosition | None, size: int, wanted: FeedFilter = NO_FILTER) -> FeedPage:
        """At most `size` entries after this position; from the oldest entry if it is None.

        Raises:
            BadInputError: this database has no such position.
            ExpiredCursorError: entries after it were deleted.
        """
        if after is None:
            await self.look()
            return await self.read(0, size, wanted)
        start = await self.resume(after)
        page = await self.read(start.position, size, wanted)
        if page.start.timeline != start.timeline:
            return await self.page(after, size, wanted)
        if page.pruned > start.position and page.end.pruning != after.pruning:
            raise ExpiredCursorError
        return page

    async def read(self, start: int, size: int, wanted: FeedFilter = NO_FILTER) -> FeedPage:
        """At most `size` entries after this position of the current timeline."""
        while True:
            if self._settled <= start + size:
                await self._settle()
            timeline, settled = self._timeline, max(self._settled, start)
            if wanted == NO_FILTER:
                rows = await self._pool.fetch(self._sql.page, start, settled, size + 1)
            else:
                rows = await self._pool.fetch(self._sql.filtered_page, start, settled, size + 1, *wanted)
            if rows[0]["timeline"] != timeline:
                await self.look()
                continue
            until = rows[0]["until"]
            lines = [row for row in rows[:size] if row["position"] is not None]
            is_cut = len(rows) > size
            end = lines[-1]["position"] if is_cut else until
            end = FeedPosition(timeline, end, rows[0]["pruning"])
            return FeedPage(
                lines, FeedPosition(timeline, start), end, has_more=is_cut or until < settled, pruned=rows[0]["pruned"]
            )

    async def precedes(self, position: FeedPosition, wanted: FeedFilter) -> bool:
        """Whether an entry precedes this position; at most `MAX_SCANNED` entries are examined."""
        [[found]] = await self._pool.fetch(PRECEDES, position.position, *wanted)
        return found

    async def look(self) -> None:
        """Update the newest and the settled position."""
        settled, pending = self._settled, self._pending
        known = _MAX_POSITION if pending else settled
        try:
            [(timeline, xmin, xmax, newest, xid)] = await self._pool.fetch(self._sql.look, known)
        except FORBIDDEN:
            if self._sql is _WITHOUT_TIMELINES:
                raise
            self._sql = _WITHOUT_TIMELINES
            await self.look()
            return
        if timeline != self._timeline or newest < settled:  # another timeline, or the table was emptied
            self._timeline, self._newest, self._settled, self._pending = timeline, 0, 0, None
            self._marked_at, self._marked = _NEVER, 0
        self._newest = max(self._newest, newest)
        if self._pending and xmin >= self._pending[1]:
            self._settled, self._pending = max(self._settled, self._pending[0]), None
        elif pending and xmax <= pending[1] and self._pending == pending:
            self._pending = None  # a crash lost this id, and on an idle database no other one gets as high
        if xid is not None and self._pending is None and newest > self._settled:
            self._pending = newest, xid
        if self._settled > self._marked and monotonic() - self._marked_at >= _MARK_SECONDS:
            self._marked_at, self._marked = monotonic(), self._settled
            await self._pool.fetch(self._sql.mark, self._timeline, self._settled)

    async def measure(self) -> tuple[FeedPosition, float]:
        """The position after the last settled entry, and the age in seconds of the oldest unsettled one (0 if none)."""
        position = await self.now()
        rows = [] if self._settled >= self._newest else await self._pool.fetch(AGE, self._settled)
        return position, max(0.0, rows[0][0]) if rows else 0.0

    async def _settle(self) -> None:
        """Wait briefly until the entries that exist now are settled."""
        deadline, pause = monotonic() + _SETTLE_TIMEOUT_SECONDS, 0.0
        await self.look()
        newest = self._newest
        while self._settled < newest and monotonic() < deadline:
            await asyncio.sleep(pause)
            pause = min(max(2 * pause, _MIN_PAUSE_SECONDS), _MAX_PAUSE_SECONDS)
            await self.look()
