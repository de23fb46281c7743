"""The enumerations of the contract, each value described."""

from enum import Enum
from typing import TYPE_CHECKING, Any

import strawberry

from graphql_api.domain.errors import Code
from graphql_api.domain.token import Action, DeactivationReason

if TYPE_CHECKING:
    from strawberry.types.enum import StrawberryEnumDefinition

__all__ = ["Action", "BatchErrorPolicy", "Code", "DeactivationReason", "EventStart", "MergeConflictPolicy"]


class BatchErrorPolicy(Enum):
    """What to do with the rest of a batch if an input fails."""

    ABORT = "ABORT"
    CONTINUE = "CONTINUE"


class MergeConflictPolicy(Enum):
    """What happens at a gateway where both users have a customer."""

    FAIL = "FAIL"
    KEEP_TARGET = "KEEP_TARGET"
    KEEP_SOURCE = "KEEP_SOURCE"


class EventStart(Enum):
    """Where a follower of the change feed starts who has no cursor."""

    OLDEST = "OLDEST"
    NOW = "NOW"


_DEPRECATED = {Action.VERIFIED.name: "A confirmation is not a change, so it adds no entry."}


def _described(enum: type[Enum], name: str, description: str, **values: str) -> None:
    """Register an enumeration with GraphQL, in place; every member has to be described."""
    registered: Any = strawberry.enum(enum, name=name, description=description)
    definition: StrawberryEnumDefinition = registered.__strawberry_definition__
    for value in definition.values:
        value.description = values[value.name]
        value.deprecation_reason = _DEPRECATED.get(value.name)


_described(
    DeactivationReason,
    "CustomerGatewayTokenDeactivationReason",
    "Why a token is inactive.",
    GATEWAY_DELETED="The gateway deleted the customer.",
    USER_REQUEST="The user asked for it.",
    MERGED="Two users were merged, and the other user's token was kept.",
    FRAUD="Fraud: do not charge this customer.",
    OTHER="Another reason, or none given.",
)
_described(
    Action,
    "CustomerGatewayTokenAction",
    "What happened to a token.",
    CREATED="The token was created.",
    UPDATED="Its description or metadata changed.",
    REASSIGNED=(
        "Customers were reassigned: the token moved to another user, was replaced by another token, or gained or "
        "lost a former id."
    ),
    REPLACED="Its customer id was replaced; the previous one is kept as a former id.",
    ACTIVATED="It was activated.",
    DEACTIVATED="It was deactivated.",
    VERIFIED="The gateway confirmed that its customer exists. Occurs only in older entries; new ones are not written.",
    MERGED=(
        "Two users were merged: the token moved, gained a former id, or was removed in favor of the other user's token."
    ),
    DELETED="It was deleted.",
    ERASED="It was deleted because its user was erased.",
    IMPORTED="A bulk import created or changed it.",
)
_described(
    Code,
    "CustomerGatewayTokenErrorCode",
    "The kind of problem with an input. The service explains each code at `/help/errors`.",
    INVALID="The input is invalid. `field` is the path of the invalid value.",
    NOT_FOUND="No token matches.",
    ALREADY_EXISTS=(
        "The user already has another customer at this gateway; `gatewayToken` is that token. In a merge with FAIL, "
        "both users have a customer at the same gateway."
    ),
    CUSTOMER_TAKEN="This gateway customer belongs, or belonged, to another user.",
    STALE=(
        "The token has changed, so `expectedVersion` does not match its version. The payload contains the current "
        "token."
    ),
    CARD_NUMBER="`description`, `metadata` or `gatewayCustomerId` contains a payment card number.",
    ERASED="This user was erased. An admin can lift the erasure.",
)
_described(
    BatchErrorPolicy,
    "BatchErrorPolicy",
    "What to do with the rest of a batch if an input fails.",
    ABORT="Save nothing.",
    CONTINUE="Save the valid inputs, and report the others in `userErrors`.",
)
_described(
    MergeConflictPolicy,
    "MergeConflictPolicy",
    "What happens at a gateway where both users have a customer.",
    FAIL="Nothing moves; each conflict is reported.",
    KEEP_TARGET="Keep the target's token. The source's customer id becomes a former id of that token.",
    KEEP_SOURCE="Move and keep the source's token. The target's customer id becomes a former id of that token.",
)
_described(
    EventStart,
    "EventStart",
    "Where to start in the change feed.",
    OLDEST="At the oldest entry.",
    NOW="After the newest entry. The page is empty; continue from its `endCursor`.",
)
