"""What mutations answer: what was done, the user to stitch, and what the caller can mend."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

import strawberry

from graphql_api.domain.errors import InputError, Problem
from graphql_api.domain.token import Token
from graphql_api.schema.enums import Code
from graphql_api.schema.types import CustomerGatewayToken, User

_TOKEN = "The token as it is now."  # noqa: S105 - not that kind of token
_USER = "The user, so that the same request can ask for all that the graph knows of them."
_ERRORS = "What was refused and how to mend it; empty where all went well."


@strawberry.type(name="CustomerGatewayTokenUserError", description="Something in an input that its sender can mend.")
class UserError:
    """A problem of an input."""

    code: Code = strawberry.field(description="What kind of problem.")
    message: str = strawberry.field(description="What is wrong and what to do about it, for people.")
    field: list[str] | None = strawberry.field(description="The place in the input, such as `input`, `gateway`.")


def user_errors(problems: Iterable[Problem], *under: str) -> list[UserError]:
    """The problems of the input that stands at this place."""
    return [
        UserError(code=problem.code, message=problem.message, field=[*under, *problem.field] or None)
        for problem in problems
    ]


def user(user_id: str | None) -> User | None:
    """The user with this id."""
    return None if user_id is None else User(id=strawberry.ID(user_id))


def shown(token: Token | None) -> CustomerGatewayToken | None:
    """A token as GraphQL shows it: its fields are read from the token itself."""
    return cast("CustomerGatewayToken | None", token)


def all_shown(tokens: list[Token]) -> list[CustomerGatewayToken]:
    """Tokens as GraphQL shows them."""
    return cast("list[CustomerGatewayToken]", tokens)


@strawberry.type(description="A token after a change of it.")
class CustomerGatewayTokenPayload:
    """The token, or why it did not change."""

    gateway_token: CustomerGatewayToken | None = strawberry.field(description=_TOKEN)
    user: User | None = strawberry.field(description=_USER)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="A token after it was saved.")
class SaveCustomerGatewayTokenPayload:
    """The token, and whether it is new."""

    gateway_token: CustomerGatewayToken | None = strawberry.field(description=_TOKEN)
    user: User | None = strawberry.field(description=_USER)
    created: bool = strawberry.field(description="Whether the token was made by this request.")
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="Tokens after they were saved.")
class SaveCustomerGatewayTokensPayload:
    """The tokens in the order of the inputs."""

    gateway_tokens: list[CustomerGatewayToken | None] = strawberry.field(
        description="In the order of the inputs; null where an input was refused, and under ABORT then all null."
    )
    created_count: int = strawberry.field(description="How many tokens were made by this request.")
    user_errors: list[UserError] = strawberry.field(
        description="What was refused and how to mend it; `field` begins with `inputs` and the index of the input."
    )


@strawberry.type(description="A token that was deleted.")
class DeleteCustomerGatewayTokenPayload:
    """What is gone."""

    deleted_id: strawberry.ID | None = strawberry.field(description="The id of the token that is gone.")
    user: User | None = strawberry.field(description=_USER)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="Two users' tokens after they became one's.")
class MergeUserGatewayTokensPayload:
    """What moved and what lost."""

    user: User | None = strawberry.field(description=_USER)
    moved: list[CustomerGatewayToken] = strawberry.field(
        description="The tokens that changed their user, as they are now."
    )
    conflicts: list[CustomerGatewayToken] = strawberry.field(
        description=(
            "At gateways where both users had a customer, the losing tokens as they were: their identifiers are former"
            " ones of the winners now. Under FAIL, the tokens that could not move."
        )
    )
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="A customer that is to be erased at its gateway.")
class ErasedGatewayCustomer:
    """What the gateway knows the user as."""

    gateway: str = strawberry.field(description="The gateway.")
    gateway_customer_id: str = strawberry.field(description="The gateway's own identifier, current or former.")


@strawberry.type(description="A user who was forgotten.")
class EraseUserGatewayTokensPayload:
    """What is left to do."""

    erased: list[ErasedGatewayCustomer] = strawberry.field(
        description="What the caller must now erase at the gateways, former identifiers included."
    )
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="A user who may have tokens again.")
class LiftUserErasurePayload:
    """The user."""

    user: User | None = strawberry.field(description=_USER)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="A short lease on creating a user's first customer at a gateway.")
class GatewayCustomerClaim:
    """A lease."""

    idempotency_key: str = strawberry.field(
        description="The same for every caller until the customer is saved: hand it to the gateway."
    )
    expires_at: datetime = strawberry.field(description="When somebody else may take the lease over.")
    acquired: bool = strawberry.field(description="Whether the lease is yours; false where somebody else holds it.")


@strawberry.type(description="Who creates a user's first customer at a gateway.")
class ClaimGatewayCustomerPayload:
    """The customer that is there, or a lease on creating it."""

    gateway_token: CustomerGatewayToken | None = strawberry.field(
        description="Set where the customer exists already: nothing to create."
    )
    claim: GatewayCustomerClaim | None = strawberry.field(description="Set where it does not.")
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


def changed(token: Token | None) -> CustomerGatewayTokenPayload:
    """The payload of a change that went well."""
    return CustomerGatewayTokenPayload(
        gateway_token=shown(token), user=user(token.user_id) if token else None, user_errors=[]
    )


def refused(refusal: InputError, *under: str) -> dict[str, Any]:
    """What the payloads of all refused changes have in common."""
    token = refusal.token
    return {
        "gateway_token": shown(token),
        "user": user(token.user_id) if token else None,
        "user_errors": user_errors(refusal.problems, *under),
    }
