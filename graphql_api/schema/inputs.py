"""The inputs of mutations, and how each becomes a value of the domain."""

from typing import Any, TypeVar

import strawberry

from graphql_api.domain import values
from graphql_api.domain.inputs import Gateways, Save, Update
from graphql_api.domain.token import Given
from graphql_api.domain.values import Problems
from graphql_api.schema.scalars import Json
from graphql_api.service.reassigning import Reassignment

T = TypeVar("T")

_USER = "The user's id in the user service: 1 to 255 characters, stored as sent."
_GATEWAY = "The gateway's name: a letter, then up to 49 letters, digits or underscores. Not case-sensitive."
_CUSTOMER = "The customer's id at the gateway: 1 to 255 printable characters without whitespace."
_DESCRIPTION = "A note for people, at most 2,000 characters."
_NULLABLE_DESCRIPTION = f"{_DESCRIPTION} Null clears it."
_METADATA = "A JSON object, at most 16 KiB and 10 levels deep."
_NULLABLE_METADATA = f"{_METADATA} Null clears it."
_ACTIVE = "Whether the customer may be used. If false, `deactivationReason` becomes OTHER."
_REACTIVATING = f"{_ACTIVE} True activates an inactive token, like `activateCustomerGatewayToken`."
_VERSION = "Change the token only if it has this version; otherwise the error is STALE."


@strawberry.input(
    description=(
        "A token to create. If the user already has this customer at this gateway, the stored token is returned "
        "unchanged, without an error; the other fields of the input are ignored."
    )
)
class CreateCustomerGatewayTokenInput:
    user_id: strawberry.ID = strawberry.field(description=_USER)
    gateway: str = strawberry.field(description=_GATEWAY)
    gateway_customer_id: str = strawberry.field(description=_CUSTOMER)
    description: str | None = strawberry.field(default=strawberry.UNSET, description=_DESCRIPTION)
    metadata: Json | None = strawberry.field(default=strawberry.UNSET, description=_METADATA)
    is_active: bool = strawberry.field(default=True, description=_ACTIVE)

    def to_domain(self, gateways: Gateways) -> Save:
        """Check and convert; raises `InputError`."""
        return Save.parse(
            gateways,
            user_id=self.user_id,
            gateway=self.gateway,
            gateway_customer_id=self.gateway_customer_id,
            description=_given(self.description),
            metadata=_given(self.metadata),
            is_active=Given(self.is_active),
            allow_update=False,
        )


@strawberry.input(
    description=(
        "A token to create or update, identified by user and gateway. Omitted fields keep their value; null clears "
        "`description` and `metadata`. If `gatewayCustomerId` differs from the stored id, the save is refused with "
        "ALREADY_EXISTS unless `replaces` is the stored id. If no token is stored, `replaces` is ignored, and any "
        "`expectedVersion` is STALE."
    )
)
class SaveCustomerGatewayTokenInput:
    user_id: strawberry.ID = strawberry.field(description=_USER)
    gateway: str = strawberry.field(description=_GATEWAY)
    gateway_customer_id: str = strawberry.field(description=_CUSTOMER)
    replaces: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The stored customer id that `gatewayCustomerId` replaces. It is kept as a former id.",
    )
    description: str | None = strawberry.field(default=strawberry.UNSET, description=_NULLABLE_DESCRIPTION)
    metadata: Json | None = strawberry.field(default=strawberry.UNSET, description=_NULLABLE_METADATA)
    is_active: bool | None = strawberry.field(default=strawberry.UNSET, description=_REACTIVATING)
    expected_version: int | None = strawberry.field(default=strawberry.UNSET, description=_VERSION)

    def to_domain(self, gateways: Gateways) -> Save:
        """Check and convert; raises `InputError`."""
        return Save.parse(
            gateways,
            user_id=self.user_id,
            gateway=self.gateway,
            gateway_customer_id=self.gateway_customer_id,
            description=_given(self.description),
            metadata=_given(self.metadata),
            is_active=_given(self.is_active),
            replaces=optional(self.replaces),
            expected_version=optional(self.expected_version),
        )


@strawberry.input(
    description="Changes to a token. Omitted fields keep their value; null clears `description` and `metadata`."
)
class UpdateCustomerGatewayTokenInput:
    id: strawberry.ID = strawberry.field(description="The token's `id`.")
    gateway_customer_id: str | None = strawberry.field(
        default=strawberry.UNSET, description=f"{_CUSTOMER} The previous id is kept as a former id."
    )
    description: str | None = strawberry.field(default=strawberry.UNSET, description=_NULLABLE_DESCRIPTION)
    metadata: Json | None = strawberry.field(default=strawberry.UNSET, description=_NULLABLE_METADATA)
    is_active: bool | None = strawberry.field(default=strawberry.UNSET, description=_REACTIVATING)
    expected_version: int | None = strawberry.field(default=strawberry.UNSET, description=_VERSION)

    def to_domain(self) -> Update:
        """Check and convert; raises `InputError`."""
        return Update.parse(
            token_id=self.id,
            gateway_customer_id=_given(self.gateway_customer_id),
            description=_given(self.description),
            metadata=_given(self.metadata),
            is_active=_given(self.is_active),
            expected_version=optional(self.expected_version),
        )


@strawberry.input(description="A customer at a gateway.")
class GatewayCustomerInput:
    gateway: str = strawberry.field(description="The gateway's name. Not case-sensitive.")
    gateway_customer_id: str = strawberry.field(description="The customer's id at the gateway.")


@strawberry.input(description="A customer of a gateway, and the user it belongs to.")
class ReassignGatewayCustomerInput:
    gateway: str = strawberry.field(description=_GATEWAY)
    gateway_customer_id: str = strawberry.field(description="The customer's current or former id at the gateway.")
    to_user_id: strawberry.ID = strawberry.field(description="The user it belongs to.")

    def to_domain(self, problems: Problems, gateways: Gateways, *place: str) -> Reassignment:
        """Check and convert; what is wrong is added to the problems of the list at this place."""
        gateway = problems.parse("gateway", gateways.parse, self.gateway, *place) or ""
        customer = problems.parse("gatewayCustomerId", values.gateway_customer_id, self.gateway_customer_id, *place)
        user_id = problems.parse("toUserId", values.user_id, self.to_user_id, *place)
        return Reassignment(gateway, customer or "", user_id or "")


def _given(value: Any) -> Given[Any] | None:
    return None if value is strawberry.UNSET else Given(value)


def optional(value: T | None) -> T | None:
    """The value that was sent; None if it was left out or null."""
    return None if value is strawberry.UNSET else value
