"""What callers ask for, parsed: an input is canonical as a whole, or refused with everything that is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Self

from graphql_api.domain import values
from graphql_api.domain.errors import Code, InputError, Problem
from graphql_api.domain.token import Edit, Given
from graphql_api.domain.values import Problems

MAX_BATCH = 1000  # inputs of one batch
_NO_FLAG = "`isActive` must be true or false, not null. Omit it to keep its value."
MIN_LEASE, MAX_LEASE = 1, 300  # seconds


@dataclass(frozen=True, slots=True)
class Gateways:
    """What an operator says of gateways.

    Args:
        allowed: the gateways that may have tokens; if none is named, every well-formed name
        numeric: the gateways whose numeric customer ids may look like card numbers (`NUMERIC_CUSTOMER_IDS`)
        id_patterns: the form of customer ids by gateway, in which `*` stands for any characters (`CUSTOMER_IDS`)
    """

    allowed: frozenset[str] = frozenset()
    numeric: frozenset[str] = frozenset()
    id_patterns: Mapping[str, str] = field(default_factory=dict[str, str])

    def parse(self, text: str) -> str:
        """The one spelling of a gateway's name.

        Raises:
            InputError: it is not a name, or not an allowed one.
        """
        name = values.gateway(text)
        if self.allowed and name not in self.allowed:
            known = ", ".join(sorted(self.allowed))
            raise InputError([Problem(Code.INVALID, f"{name} is not an allowed gateway. Allowed are: {known}.")])
        return name

    def key(self, text: str) -> str | None:
        """The same for a lookup: None if no token can have this gateway."""
        try:
            return self.parse(text)
        except InputError:
            return None

    def listed_customer_id(self, gateway: str, text: str) -> str:
        """A customer's identifier at this gateway, kept as sent, which may have been stored before today's form.

        Raises:
            InputError: it is malformed, or a payment card number.
        """
        values.gateway_customer_id(text)
        return self._without_card_number(gateway, text)

    def customer_id(self, gateway: str, text: str) -> str:
        """A customer's new identifier at this gateway, kept as sent.

        Raises:
            InputError: it is malformed, does not have the form that the gateway's identifiers have, or is a payment
                card number.
        """
        values.gateway_customer_id(text)
        pattern = self.id_patterns.get(gateway)
        if pattern is not None and not _matches(pattern, text):
            raise InputError([Problem(Code.INVALID, f"Customer ids at {gateway} must match {pattern} (CUSTOMER_IDS).")])
        return self._without_card_number(gateway, text)

    def _without_card_number(self, gateway: str, text: str) -> str:
        return text if gateway in self.numeric and text.isdigit() else values.without_card_number(text)


def _matches(pattern: str, text: str) -> bool:
    """Whether the text has this form, in which `*` stands for any characters; linear in the text's length."""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    *inner, last = others
    if not text.startswith(first):
        return False
    place = len(first)
    for part in inner:
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return len(text) - len(last) >= place and text.endswith(last)


class Save(NamedTuple):
    """A token of this user at this gateway, as it shall be; `replaces` names the customer that may be replaced."""

    user_id: str
    gateway: str
    edit: Edit
    replaces: str | None = None
    expected_version: int | None = None
    # False: what is stored already is answered or refused, and never changed
    allow_update: bool = True
    # why the customer's identifier cannot be a new one
    refused_as_new: InputError | None = None

    @property
    def customer(self) -> str:
        """The gateway's identifier of the customer."""
        if self.edit.gateway_customer_id is None:
            raise TypeError("a save names its customer")
        return self.edit.gateway_customer_id

    @property
    def can_change_text(self) -> bool:
        """Whether it can change the description or the metadata of a stored token."""
        is_given = self.edit.description is not None or self.edit.metadata is not None
        return is_given and self.allow_update and not self.refused_as_new

    @classmethod
    def parse(
        cls,
        gateways: Gateways,
        *,
        user_id: str,
        gateway: str,
        gateway_customer_id: str,
        description: Given[str | None] | None,
        metadata: Given[Any] | None,
        is_active: Given[bool | None] | None,
        replaces: str | None = None,
        expected_version: int | None = None,
        allow_update: bool = True,
    ) -> Self:
        """Check every field.

        Raises:
            InputError: with all that is wrong.
        """
        try:  # as if nothing were wrong; what is wrong is then gathered field by field
            name = gateways.parse(gateway)
            edit = Edit(
                gateway_customer_id=gateways.customer_id(name, gateway_customer_id),
                description=None if description is None else Given(values.description(description.value)),
                metadata=None if metadata is None else Given(values.metadata(metadata.value)),
                is_active=None if is_active is None else _flag(is_active.value),
            )
            user, replaced = values.user_id(user_id), None if replaces is None else values.well_formed(replaces)
        except InputError:
            pass
        else:
            return cls(user, name, edit, replaced, expected_version, allow_update)
        problems = Problems()
        user = problems.parse("userId", values.user_id, user_id)
        name = problems.parse("gateway", gateways.parse, gateway)
        if replaces is not None:
            problems.parse("replaces", values.well_formed, replaces)
        as_new = Problems()
        if problems.parse("gatewayCustomerId", values.gateway_customer_id, gateway_customer_id) is not None:
            as_new.parse("gatewayCustomerId", partial(gateways.customer_id, name or ""), gateway_customer_id)
        edit = _edit(problems, gateway_customer_id, description, metadata, is_active)
        if user is None or name is None or not problems.are_none:
            raise InputError([*problems.refused().problems, *as_new.refused().problems])
        return cls(
            user_id=user,
            gateway=name,
            edit=edit,
            replaces=replaces,
            expected_version=expected_version,
            allow_update=allow_update,
            refused_as_new=None if as_new.are_none else as_new.refused(),
        )


class Update(NamedTuple):
    """A change of the token with this id; None if no token can have it."""

    id: str | None
    edit: Edit
    expected_version: int | None

    @classmethod
    def parse(
        cls,
        *,
        token_id: str,
        gateway_customer_id: Given[str | None] | None = None,
        description: Given[str | None] | None = None,
        metadata: Given[Any] | None = None,
        is_active: Given[bool | None] | None = None,
        expected_version: int | None = None,
    ) -> Self:
        """Check every field.

        Raises:
            InputError: with all that is wrong.
        """
        problems = Problems()
        customer = gateway_customer_id.value if gateway_customer_id else None
        if gateway_customer_id is not None and customer is None:
            problems.add(
                Code.INVALID,
                "`gatewayCustomerId` must not be null. Omit it to keep its value.",
                "gatewayCustomerId",
            )
        elif customer is not None:  # whether its form is right depends on the token's gateway
            problems.parse("gatewayCustomerId", values.gateway_customer_id, customer)
        edit = _edit(problems, customer, description, metadata, is_active)
        known_id = problems.parse("id", values.token_id, token_id)
        problems.check()
        return cls(id=known_id, edit=edit, expected_version=expected_version)

    def check_customer_id(self, gateways: Gateways, gateway: str, stored: str) -> None:
        """Go on only if a customer id that is not the stored one may be one at this gateway, which is the token's.

        Raises:
            InputError: INVALID or CARD_NUMBER.
        """
        if self.edit.gateway_customer_id is not None and self.edit.gateway_customer_id != stored:
            problems = Problems()
            problems.parse("gatewayCustomerId", partial(gateways.customer_id, gateway), self.edit.gateway_customer_id)
            problems.check()


def _flag(value: bool | None) -> bool:  # noqa: FBT001 - what a caller sent
    if value is None:
        raise InputError([Problem(Code.INVALID, _NO_FLAG, ("isActive",))])
    return value


def lease_seconds(value: int) -> int:
    """How long a claim may last.

    Raises:
        InputError: it is too short or too long.
    """
    if not MIN_LEASE <= value <= MAX_LEASE:
        raise InputError(
            [Problem(Code.INVALID, f"`leaseSeconds` must be between {MIN_LEASE} and {MAX_LEASE}, not {value}.")]
        )
    return value


def _edit(
    problems: Problems,
    gateway_customer_id: str | None,
    description: Given[str | None] | None,
    metadata: Given[Any] | None,
    is_active: Given[bool | None] | None,
) -> Edit:
    if is_active is not None and is_active.value is None:
        problems.add(Code.INVALID, _NO_FLAG, "isActive")
    given = partial(_given, problems)
    return Edit(
        gateway_customer_id=gateway_customer_id,
        description=given("description", values.description, description),
        metadata=given("metadata", values.metadata, metadata),
        is_active=is_active.value if is_active else None,
    )


def _given(problems: Problems, field: str, parse: Any, value: Given[Any] | None) -> Given[Any] | None:
    return None if value is None else Given(problems.parse(field, parse, value.value))
