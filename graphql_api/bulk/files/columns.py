"""Which column means what: by its name in any case and spacing, a name in gateways' exports, or what was said."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphql_api.bulk.files.opening import ReadOptions
from graphql_api.domain.cards import quoted
from graphql_api.domain.errors import BadInputError

# The columns of a file of rejects that say why, and those of a report of `reconcile`; behind them stands what can be
# imported.
TEXT = "text"  # of a line that is not a record
REASONS = ("line", "field", "code", "message", TEXT)
_DIFFERENCES = ("difference", "reason")
_MAX_SHOWN = 40  # characters of a column's name, or names of columns


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of a kind of file mean, and what they may be called.

    Args:
        names: by meaning, further names; every meaning is one of its own names
        required: the meanings that a file has to have
        unknown_are_refused: whether a column that means nothing is a mistake rather than more than is needed
        of_exports: columns that only gateways' exports of customers have, whose `id` is the customer's
    """

    names: Mapping[str, Sequence[str]]
    required: Sequence[str]
    unknown_are_refused: bool = False
    of_exports: frozenset[str] = frozenset()

    def is_export(self, header: Sequence[str]) -> bool:
        """Whether this is a gateway's export of its customers, which has more columns than are needed."""
        return not self.of_exports.isdisjoint(map(_normalized, header))

    def find(self, header: Sequence[str]) -> dict[str, list[int]]:
        """By meaning, the columns that may have it."""
        known = {_normalized(name): meaning for meaning, more in self.names.items() for name in (meaning, *more)}
        found: dict[str, list[int]] = {}
        for index, name in enumerate(header):
            if (meaning := known.get(_normalized(name))) is not None:
                found.setdefault(meaning, []).append(index)
        if "gatewayCustomerId" not in found and "id" in found and self.is_export(header):
            found["gatewayCustomerId"] = found.pop("id")
        return found

    def resolve(self, header: Sequence[str], options: ReadOptions, *, is_complete: bool = True) -> list[str | None]:
        """What each column means, in the order of the header; None if it is not needed.

        Args:
            header: the names of the columns, or the keys of an object
            options: what was said of columns
            is_complete: whether what is required has to be there

        Raises:
            BadInputError: a column is missing, unknown or there twice; the message names the option that decides.
        """
        found = self.find(header)
        # Rejected lines have columns that are called what they mean, whatever the file had that they are from.
        columns = {} if set(REASONS) <= set(header) else options.columns
        for meaning, name in columns.items():
            found[meaning] = [self._named(header, meaning, name)]
        taken = {index for meaning in columns for index in found[meaning]}
        meanings: list[str | None] = [None] * len(header)
        for meaning, indexes in found.items():
            left = indexes if meaning in columns else [index for index in indexes if index not in taken]
            if len({header[index] for index in left}) < len(left):
                raise BadInputError(f"There are two columns {shown(header[left[0]])}. Rename or remove one.")
            if len(left) > 1:
                names = " and ".join(shown(header[index]) for index in left)
                raise BadInputError(
                    f"The columns {names} may both be {meaning}. Say which with --column {meaning}=COLUMN."
                )
            for index in left:
                meanings[index] = meaning
        if is_complete:
            self._expect_required(header, meanings, options)
        if self.unknown_are_refused and not (options.skip_unknown_columns or self.is_export(header)):
            self._refuse_unknown(header, meanings)
        return meanings

    def _named(self, header: Sequence[str], meaning: str, name: str) -> int:
        if meaning not in self.names:
            known = ", ".join(self.names)
            raise BadInputError(f"--column must be FIELD=COLUMN, where FIELD is one of {known}; not {shown(meaning)}.")
        for like in (str.strip, _normalized):
            places = [index for index, each in enumerate(header) if like(each) == like(name)]
            if len(places) == 1:
                return places[0]
        raise BadInputError(f"The file has no column {shown(name)}, or two of them; it has {_listed(header)}.")

    def _expect_required(self, header: Sequence[str], meanings: Sequence[str | None], options: ReadOptions) -> None:
        given = {*meanings, "gateway"} if options.gateway else {*meanings}
        missing = [meaning for meaning in self.required if meaning not in given]
        if missing:
            *others, last = missing
            are_missing = f"columns {', '.join(others)} and {last} are" if others else f"column {last} is"
            ways_out = [f"Map {'them' if others else 'it'} with --column {missing[0]}=COLUMN"]
            ways_out += [f"--column {meaning}=COLUMN" for meaning in missing[1:]]
            if "gateway" in missing:
                ways_out.append("or set one gateway for all lines with --gateway")
            raise BadInputError(f"The {are_missing} missing. {', '.join(ways_out)}. The file has {_listed(header)}.")

    def _refuse_unknown(self, header: Sequence[str], meanings: Sequence[str | None]) -> None:
        reasons = next((names for names in (REASONS, _DIFFERENCES) if set(names) <= set(header)), ())
        for name, meaning in zip(header, meanings, strict=True):
            if meaning is None and name.strip() and name not in reasons:
                raise BadInputError(
                    f"The column {shown(name)} is none of {', '.join(self.names)}. Say which it is with --column "
                    "FIELD=COLUMN, or add --skip-unknown-columns."
                )


# Stripe's exports have what a platform keeps in a customer's metadata in columns such as `user_id (metadata)`.
_CUSTOMER_IDS = (
    "customer id",
    "customer",
    "stripe customer id",
    "braintree customer id",
    "shopper reference",
    "payer id",
)
TOKENS = Columns(
    {
        "id": ("token id",),
        "userId": ("user", "user_id (metadata)"),
        "gateway": ("payment gateway",),
        "gatewayCustomerId": _CUSTOMER_IDS,
        "description": (),
        "metadata": (),
        "isActive": ("active",),
        "createdAt": (),
        "updatedAt": (),
        "version": (),
        "activatedAt": (),
        "deactivatedAt": (),
        "deactivationReason": (),
        "lastVerifiedAt": (),
        "formerGatewayCustomerIds": (),
    },
    required=("userId", "gateway", "gatewayCustomerId"),
    unknown_are_refused=True,
    # Of Stripe's dashboard, Stripe's data export and Braintree's.
    of_exports=frozenset({"createdutc", "delinquent", "defaultsource", "cardid", "creditcardtoken"}),
)
# Stripe's file of copied customers has `customer_id_old` and `customer_id_new`, its mapping of imported ones
# `old_customer_id` and `stripe_customer_id`.
ID_CHANGES = Columns(
    {
        "old": ("old id", "old customer id", "customer id old", "old gateway customer id"),
        "new": ("new id", "new customer id", "customer id new", "new gateway customer id", "stripe customer id"),
    },
    required=("old", "new"),
)
# Stripe's list of customers has `id`, its reports have `customer_id` and `Customer ID`, as have Braintree's searches.
# Adyen's reports have `Shopper Reference`.
CUSTOMERS = Columns(
    {
        "id": ("gateway customer id", *_CUSTOMER_IDS),
        "deleted": ("is deleted",),
        "deletedAt": (),
        "status": ("customer status",),
    },
    required=("id",),
)


def renamed(columns: Columns, header: Sequence[str], meanings: Sequence[str | None]) -> list[str]:
    """For people, which columns are called otherwise than what they mean, and which ones of an export are ignored."""
    said = [
        f"{shown(name)} → {meaning}"
        for name, meaning in zip(header, meanings, strict=True)
        if meaning is not None and name != meaning
    ]
    if not columns.is_export(header):
        return said
    others = [name for name, meaning in zip(header, meanings, strict=True) if meaning is None]
    return [*said, *([f"ignores {_names(others)}"] if others else [])]


def text_of(line: bytes | str) -> dict[str, str]:
    """What is left of a line that is not a record, to be corrected."""
    return {TEXT: (line.decode(errors="surrogateescape") if isinstance(line, bytes) else line).rstrip("\r\n")}


def shown(name: str) -> str:
    """A column's name for a message, which quotes no card number if the first line is not a header."""
    return quoted(name, most=_MAX_SHOWN)


def _listed(header: Sequence[str]) -> str:
    return f"the columns {names}" if (names := _names(header)) else "no header"


def _names(header: Sequence[str]) -> str:
    names = [shown(name) for name in header if name.strip()]
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(names[:_MAX_SHOWN]) + more


def _normalized(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()
