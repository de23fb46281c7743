"""What mutations answer: what was done, the user to stitch, and the errors that the caller can fix."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

import strawberry

from graphql_api.domain.errors import InputError, Problem
from graphql_api.domain.token import Token
from graphql_api.schema.enums import Code
from graphql_api.schema.types import CustomerGatewayToken, User

_TOKEN = "The token in its current state."  # noqa: S105 - not that kind of token
_USER = "The user. Select fields of any subgraph to read them in the same request."
_ERRORS = "What is wrong with the input and how to fix it; empty on success."


@strawberry.type(name="CustomerGatewayTokenUserError", description="A problem with the input that you can fix.")
class UserError:
    code: Code = strawberry.field(description="The kind of problem. Branch on this.")
    message: str = strawberry.field(description="What is wrong and how to fix it, for people.")
    field: list[str] | None = strawberry.field(description="The path of the input field, such as `input`, `gateway`.")


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


@strawberry.type(description="The result of changing a token.")
class CustomerGatewayTokenPayload:
    gateway_token: CustomerGatewayToken | None = strawberry.field(description=_TOKEN)
    user: User | None = strawberry.field(description=_USER)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="The result of saving a token.")
class SaveCustomerGatewayTokenPayload:
    gateway_token: CustomerGatewayToken | None = strawberry.field(description=_TOKEN)
    user: User | None = strawberry.field(description=_USER)
    created: bool = strawberry.field(description="Whether this request created the token.")
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="The result of saving a batch of tokens.")
class SaveCustomerGatewayTokensPayload:
    gateway_tokens: list[CustomerGatewayToken | None] = strawberry.field(
        description=(
            "The tokens in input order; null for inputs that failed, and for all inputs if one failed with ABORT."
        )
    )
    created_count: int = strawberry.field(description="How many tokens this request created.")
    user_errors: list[UserError] = strawberry.field(
        description="What is wrong and how to fix it. `field` starts with `inputs` and the index of the input."
    )


@strawberry.type(description="The result of deleting a token.")
class DeleteCustomerGatewayTokenPayload:
    deleted_id: strawberry.ID | None = strawberry.field(description="The id of the deleted token.")
    user: User | None = strawberry.field(description=_USER)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="The result of merging two users' tokens.")
class MergeUserGatewayTokensPayload:
    user: User | None = strawberry.field(description=_USER)
    moved: list[CustomerGatewayToken] = strawberry.field(
        description="The tokens that moved to `intoUserId`, in their current state."
    )
    conflicts: list[CustomerGatewayToken] = strawberry.field(
        description=(
            "For each gateway at which both users had a customer, the token that was removed, as it was before the "
            "merge. Its customer id is now a former id of the token in `winners`. With FAIL, the tokens that could "
            "not move. A token with the reason GATEWAY_DELETED is not a conflict: the other token is kept."
        )
    )
    winners: list[CustomerGatewayToken] = strawberry.field(
        description=(
            "The tokens that were kept, in their current state and in the order of `conflicts`. With FAIL, the "
            "target's tokens."
        )
    )
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="A customer that you must delete at its gateway.")
class ErasedGatewayCustomer:
    gateway: str = strawberry.field(description="The gateway.")
    gateway_customer_id: str = strawberry.field(description="The customer's current or former id at the gateway.")


@strawberry.type(description="The result of erasing a user.")
class EraseUserGatewayTokensPayload:
    erased: list[ErasedGatewayCustomer] = strawberry.field(
        description=(
            "The customers that you must now delete at their gateways, including former ids. If you repeat the call, "
            "it returns those that you have not confirmed."
        )
    )
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="The result of confirming that customers were deleted at their gateways.")
class ConfirmGatewayErasuresPayload:
    confirmed_count: int = strawberry.field(
        description=("How many of these customers were on the list of customers to delete.")
    )
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="The result of lifting a user's erasure.")
class LiftUserErasurePayload:
    user: User | None = strawberry.field(description=_USER)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="A short lease that lets one caller create a user's customer at a gateway.")
class GatewayCustomerClaim:
    idempotency_key: str = strawberry.field(
        description=(
            "Pass it to the gateway as the idempotency key. All callers get the same key until the customer is saved "
            "or the claim is released. Later claims and other databases have different keys."
        )
    )
    expires_at: datetime = strawberry.field(description="When another caller may take over the lease.")
    acquired: bool = strawberry.field(description="Whether you hold the lease; false if another caller holds it.")
    replaces: str | None = strawberry.field(
        description=(
            "The id of the deleted customer that the new one replaces. Pass it as `replaces` when you save; null if "
            "there is none."
        )
    )


@strawberry.type(description="The result of releasing a claim.")
class ReleaseGatewayCustomerClaimPayload:
    released: bool = strawberry.field(description="False if this is no longer the claim's key.")
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)


@strawberry.type(description="The result of reassigning customers.")
class ReassignGatewayCustomersPayload:
    gateway_tokens: list[CustomerGatewayToken | None] = strawberry.field(
        description=(
            "The tokens in input order and in their current state. Null if the id is not any token's current "
            "customer id; all are null if one item was refused."
        )
    )
    user_errors: list[UserError] = strawberry.field(
        description="What is wrong and how to fix it. `field` starts with `customers` and the index of the customer."
    )


@strawberry.type(description="The existing customer, or a claim to create it.")
class ClaimGatewayCustomerPayload:
    gateway_token: CustomerGatewayToken | None = strawberry.field(
        description=(
            "The token, if the user already has a customer. Do not create another one. If it is inactive, which is "
            "never because of GATEWAY_DELETED, do not charge the customer."
        )
    )
    claim: GatewayCustomerClaim | None = strawberry.field(
        description=("The claim, if the user has no customer or the gateway deleted it.")
    )
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
