"""The enumerations of the contract, each value described."""

from enum import Enum
from typing import TYPE_CHECKING, Any

import strawberry

from graphql_api.domain.errors import Code
from graphql_api.domain.token import Action, DeactivationReason

if TYPE_CHECKING:
    from strawberry.types.enum import StrawberryEnumDefinition

__all__ = ["Action", "BatchErrorPolicy", "Code", "DeactivationReason", "MergeConflictPolicy"]


class BatchErrorPolicy(Enum):
    """What one refused input does to the others of its batch."""

    ABORT = "ABORT"
    CONTINUE = "CONTINUE"


class MergeConflictPolicy(Enum):
    """What happens at a gateway where both users have a customer."""

    FAIL = "FAIL"
    KEEP_TARGET = "KEEP_TARGET"
    KEEP_SOURCE = "KEEP_SOURCE"


def _described(enum: type[Enum], name: str, description: str, **values: str) -> None:
    """Register an enumeration with GraphQL, in place; every member has to be described."""
    registered: Any = strawberry.enum(enum, name=name, description=description)
    definition: StrawberryEnumDefinition = registered.__strawberry_definition__
    for value in definition.values:
        value.description = values[value.name]


_described(
    DeactivationReason,
    "CustomerGatewayTokenDeactivationReason",
    "Why a token is inactive.",
    GATEWAY_DELETED="The gateway says that its customer is gone.",
    USER_REQUEST="The user asked for it.",
    MERGED="Another token took its place when two users became one.",
    FRAUD="The customer is not to be charged.",
    OTHER="Any other reason, and the one where none was given.",
)
_described(
    Action,
    "CustomerGatewayTokenAction",
    "What was done to a token.",
    CREATED="The token was made.",
    UPDATED="Its description or metadata changed.",
    REPLACED="It got another gateway customer id; the one before is kept as a former one.",
    ACTIVATED="It was made active.",
    DEACTIVATED="It was made inactive.",
    VERIFIED="The gateway confirmed that its customer exists.",
    MERGED="It moved to another user, took over a former identifier, or lost its place, when two users became one.",
    DELETED="It was deleted.",
    ERASED="It was deleted because its user was forgotten.",
    IMPORTED="It came or was changed by a bulk import.",
)
_described(
    Code,
    "CustomerGatewayTokenErrorCode",
    "What kind of problem an input has; docs/errors.md says what to do about each.",
    INVALID="The input is malformed; `field` names the place.",
    NOT_FOUND="No token matches.",
    ALREADY_EXISTS="This user already has another customer at this gateway; the payload carries that token.",
    CUSTOMER_TAKEN="This gateway customer belongs, or belonged, to another user.",
    STALE="`expectedVersion` no longer matches: somebody else changed the token; the payload carries it as it is now.",
    CARD_NUMBER="Description, metadata or gatewayCustomerId holds a payment card number.",
    ERASED="This user was erased; an admin can lift that.",
)
_described(
    BatchErrorPolicy,
    "BatchErrorPolicy",
    "What one refused input does to the others of its batch.",
    ABORT="Nothing is saved.",
    CONTINUE="What is right is saved.",
)
_described(
    MergeConflictPolicy,
    "MergeConflictPolicy",
    "What happens at a gateway where both users have a customer.",
    FAIL="Nothing is moved; each conflict is named.",
    KEEP_TARGET="The token of the user who stays is kept; the other's identifier becomes a former one of it.",
    KEEP_SOURCE="The token of the user who goes is kept and moved; the other's identifier becomes a former one of it.",
)
