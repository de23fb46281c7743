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
    """What happens to the other inputs of a batch if one fails."""

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


_DEPRECATED: dict[Any, str] = {Action.VERIFIED: "A verification is not a change, so it adds no entry."}


def _described(enum: type[Enum], name: str, description: str, **values: str) -> None:
    """Register an enumeration with GraphQL, in place; every member has to be described."""
    registered: Any = strawberry.enum(enum, name=name, description=description)
    definition: StrawberryEnumDefinition = registered.__strawberry_definition__
    for value in definition.values:
        value.description = values[value.name]
        value.deprecation_reason = _DEPRECATED.get(value.value)


_described(
    DeactivationReason,
    "CustomerGatewayTokenDeactivationReason",
    "Why a token is inactive.",
    GATEWAY_DELETED="The gateway deleted the customer.",
    USER_REQUEST="The user asked for it.",
    MERGED="Another token took its place when two users were merged.",
    FRAUD="Fraud: do not charge this customer.",
    OTHER="Another reason, or no reason was given.",
)
_described(
    Action,
    "CustomerGatewayTokenAction",
    "What happened to a token.",
    CREATED="The token was created.",
    UPDATED="Its description or metadata changed.",
    REASSIGNED="It moved to the user it belongs to, gave way to another token, or got or lost a former id.",
    REPLACED="It got another customer id; the previous one is kept as a former id.",
    ACTIVATED="It was activated.",
    DEACTIVATED="It was deactivated.",
    VERIFIED="The gateway confirmed that its customer exists. No longer written: older entries keep it.",
    MERGED="Two users were merged: the token moved, took over a former id, or lost its place.",
    DELETED="It was deleted.",
    ERASED="It was deleted because its user was erased.",
    IMPORTED="A bulk import created or changed it.",
)
_described(
    Code,
    "CustomerGatewayTokenErrorCode",
    "The kind of problem with an input. The page `/help/errors` explains each code.",
    INVALID="The input is malformed; `field` names the place.",
    NOT_FOUND="No token matches.",
    ALREADY_EXISTS="This user already has another customer at this gateway. The payload contains that token.",
    CUSTOMER_TAKEN="This gateway customer belongs, or belonged, to another user.",
    STALE="The token changed and `expectedVersion` no longer matches. The payload contains the current token.",
    CARD_NUMBER="`description`, `metadata` or `gatewayCustomerId` contains a payment card number.",
    ERASED="This user was erased. An admin can lift the erasure.",
)
_described(
    BatchErrorPolicy,
    "BatchErrorPolicy",
    "What happens to the other inputs of a batch if one fails.",
    ABORT="Nothing is saved.",
    CONTINUE="Valid inputs are saved.",
)
_described(
    MergeConflictPolicy,
    "MergeConflictPolicy",
    "What happens at a gateway where both users have a customer.",
    FAIL="Nothing moves; each conflict is reported.",
    KEEP_TARGET="Keep the target's token. The source's customer id becomes a former id of it.",
    KEEP_SOURCE="Move and keep the source's token. The target's customer id becomes a former id of it.",
)
_described(
    EventStart,
    "EventStart",
    "Where to start in the change feed.",
    OLDEST="At the oldest entry.",
    NOW="After the newest entry: the page is empty, and its `endCursor` is where to continue.",
)
