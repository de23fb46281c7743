"""The mutations: each translates its input, calls the service and translates what comes back."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import wraps
from typing import Annotated, Any

import strawberry
from strawberry.federation.schema_directives import Cost

from graphql_api.domain import deadline, values
from graphql_api.domain.errors import BadInputError, Code, InputError, Problem, UnchangedError
from graphql_api.domain.inputs import MAX_BATCH, MIN_LEASE, Save
from graphql_api.domain.inputs import lease_seconds as lease
from graphql_api.domain.values import Problems
from graphql_api.schema import payloads
from graphql_api.schema.context import Info
from graphql_api.schema.enums import BatchErrorPolicy, DeactivationReason, MergeConflictPolicy
from graphql_api.schema.inputs import (
    CreateCustomerGatewayTokenInput,
    GatewayCustomerInput,
    ReassignGatewayCustomerInput,
    SaveCustomerGatewayTokenInput,
    UpdateCustomerGatewayTokenInput,
    optional,
)
from graphql_api.schema.payloads import (
    ClaimGatewayCustomerPayload,
    ConfirmGatewayErasuresPayload,
    CustomerGatewayTokenPayload,
    DeleteCustomerGatewayTokenPayload,
    ErasedGatewayCustomer,
    EraseUserGatewayTokensPayload,
    GatewayCustomerClaim,
    LiftUserErasurePayload,
    MergeUserGatewayTokensPayload,
    ReassignGatewayCustomersPayload,
    ReleaseGatewayCustomerClaimPayload,
    SaveCustomerGatewayTokenPayload,
    SaveCustomerGatewayTokensPayload,
    UserError,
    user_errors,
)
from graphql_api.service import claims, erasing, gateway_reports, merging, reassigning, saving, updating
from graphql_api.service.saving import SaveResult
from graphql_api.service.tokens import Tokens

_COST = Cost(weight=10)  # of a write; reading a token costs 1

TokenId = Annotated[strawberry.ID, strawberry.argument(description="The token's id.")]
ExpectedVersion = Annotated[
    int | None,
    strawberry.argument(description="Change the token only if it has this version; otherwise the error is STALE."),
]
UserId = Annotated[strawberry.ID, strawberry.argument(description="The user's id.")]
Gateway = Annotated[
    str, strawberry.argument(description=("The gateway. Not case-sensitive: `stripe` is the same as `STRIPE`."))
]
Customer = Annotated[str, strawberry.argument(description="The customer's id at the gateway.")]


def _mutation(resolver: Callable[..., Awaitable[Any]], refused: Callable[[InputError], Any], description: str) -> Any:
    """A field that runs the mutation within the request's deadline, and counts its user errors by name and code.

    Args:
        resolver: what it does
        refused: the payload if the input breaks a rule
        description: of the field
    """

    @wraps(resolver)
    async def mutation(info: Info, *args: Any, **kwargs: Any) -> Any:
        with deadline.for_mutation():
            if deadline.has_passed():  # earlier mutations of the batch used up the time
                raise UnchangedError("No time was left for this mutation")
            try:
                payload = await resolver(info, *args, **kwargs)
            except InputError as refusal:
                payload = refused(refusal)
        for error in payload.user_errors:
            info.context.refuse(info.field_name, error.code.value)
        return payload

    return strawberry.federation.field(directives=[_COST], resolver=mutation, description=description)


def _refused(payload: Callable[..., Any], **others: Any) -> Callable[[InputError], Any]:
    """The payload of a refusal: its user errors, and these other fields."""
    return lambda refusal: payload(user_errors=user_errors(refusal.problems), **others)


def _unchanged(
    *under: str, payload: Callable[..., Any] = CustomerGatewayTokenPayload, **others: Any
) -> Callable[[InputError], Any]:
    """The payload of a change of one token that was refused: the token as it is; the input stands at this place."""
    return lambda refusal: payload(**payloads.refused(refusal, *under), **others)


async def _create(
    info: Info,
    input: Annotated[  # noqa: A002
        CreateCustomerGatewayTokenInput, strawberry.argument(description="The token.")
    ],
) -> CustomerGatewayTokenPayload:
    tokens = info.context.begin(info.field_name)
    return payloads.changed((await saving.save(tokens, input.to_domain(tokens.gateways))).token)


async def _save(
    info: Info,
    input: Annotated[  # noqa: A002
        SaveCustomerGatewayTokenInput, strawberry.argument(description="The token.")
    ],
) -> SaveCustomerGatewayTokenPayload:
    tokens = info.context.begin(info.field_name)
    saved = await saving.save(tokens, input.to_domain(tokens.gateways))
    return SaveCustomerGatewayTokenPayload(
        gateway_token=payloads.shown(saved.token),
        user=payloads.user(saved.token.user_id),
        created=saved.created,
        user_errors=[],
    )


async def _save_many(
    info: Info,
    inputs: Annotated[list[SaveCustomerGatewayTokenInput], strawberry.argument(description="At most 1,000 tokens.")],
    on_error: Annotated[
        BatchErrorPolicy, strawberry.argument(description="What happens to the other inputs if one fails.")
    ] = BatchErrorPolicy.ABORT,
) -> SaveCustomerGatewayTokensPayload:
    tokens = info.context.begin(info.field_name)
    if len(inputs) > MAX_BATCH:
        message = f"A batch can have at most {MAX_BATCH} inputs; this one has {len(inputs)}. Send several batches."
        raise InputError([Problem(Code.INVALID, message, ("inputs",))])
    aborts = on_error is BatchErrorPolicy.ABORT
    parsed = [_parsed(tokens, each) for each in inputs]
    saves = [each for each in parsed if isinstance(each, Save)]
    results: Sequence[SaveResult | InputError] = []
    if len(saves) == len(parsed) or not aborts:
        results = await saving.save_many(tokens, saves, abort=aborts)
    remaining = iter(results)
    outcomes = [next(remaining, None) if isinstance(each, Save) else each for each in parsed]
    errors = [
        error
        for index, outcome in enumerate(outcomes)
        if isinstance(outcome, InputError)
        for error in user_errors(outcome.problems, "inputs", str(index))
    ]
    saved = [each if isinstance(each, SaveResult) and not (aborts and errors) else None for each in outcomes]
    return SaveCustomerGatewayTokensPayload(
        gateway_tokens=[payloads.shown(each.token) if each else None for each in saved],
        created_count=sum(each.created for each in saved if each),
        user_errors=errors,
    )


def _parsed(tokens: Tokens, each: SaveCustomerGatewayTokenInput) -> Save | InputError:
    try:
        return each.to_domain(tokens.gateways)
    except InputError as refusal:
        return refusal


async def _update(
    info: Info,
    input: Annotated[  # noqa: A002
        UpdateCustomerGatewayTokenInput, strawberry.argument(description="The changes.")
    ],
) -> CustomerGatewayTokenPayload:
    tokens = info.context.begin(info.field_name)
    return payloads.changed(await updating.update(tokens, input.to_domain()))


async def _activate(
    info: Info,
    id: TokenId,  # noqa: A002
    expected_version: ExpectedVersion = strawberry.UNSET,
) -> CustomerGatewayTokenPayload:
    tokens = info.context.begin(info.field_name)
    return payloads.changed(await updating.activate(tokens, id, optional(expected_version)))


async def _deactivate(
    info: Info,
    id: TokenId,  # noqa: A002
    reason: Annotated[
        DeactivationReason, strawberry.argument(description="Why the customer must no longer be used.")
    ] = DeactivationReason.OTHER,
    expected_version: ExpectedVersion = strawberry.UNSET,
) -> CustomerGatewayTokenPayload:
    tokens = info.context.begin(info.field_name)
    return payloads.changed(await updating.deactivate(tokens, id, reason, optional(expected_version)))


async def _delete(
    info: Info,
    id: TokenId,  # noqa: A002
    expected_version: ExpectedVersion = strawberry.UNSET,
) -> DeleteCustomerGatewayTokenPayload:
    user_id = await updating.delete(info.context.begin(info.field_name), id, optional(expected_version))
    deleted = strawberry.ID(values.token_id(id) or id)
    return DeleteCustomerGatewayTokenPayload(deleted_id=deleted, user=payloads.user(user_id), user_errors=[])


def _not_deleted(refusal: InputError) -> DeleteCustomerGatewayTokenPayload:
    user = payloads.user(refusal.token.user_id if refusal.token else None)
    return DeleteCustomerGatewayTokenPayload(deleted_id=None, user=user, user_errors=user_errors(refusal.problems))


async def _deactivate_customer(
    info: Info,
    gateway: Gateway,
    gateway_customer_id: Customer,
    reason: Annotated[
        DeactivationReason, strawberry.argument(description="Why the customer must no longer be used.")
    ] = DeactivationReason.GATEWAY_DELETED,
    occurred_at: Annotated[
        datetime | None,
        strawberry.argument(
            description=(
                "When it happened, according to the gateway; defaults to the current time. At most five minutes in the "
                "future."
            )
        ),
    ] = strawberry.UNSET,
) -> CustomerGatewayTokenPayload:
    tokens = info.context.begin(info.field_name)
    key = _customer(tokens, gateway, gateway_customer_id)
    return payloads.changed(await gateway_reports.deactivate_customer(tokens, *key, reason, optional(occurred_at)))


async def _verify_customer(
    info: Info,
    gateway: Gateway,
    gateway_customer_id: Customer,
    at: Annotated[
        datetime | None,
        strawberry.argument(description="When the gateway confirmed it; the current time if omitted."),
    ] = strawberry.UNSET,
) -> CustomerGatewayTokenPayload:
    tokens = info.context.begin(info.field_name)
    key = _customer(tokens, gateway, gateway_customer_id)
    return payloads.changed(await gateway_reports.verify_customer(tokens, *key, optional(at)))


async def _claim(
    info: Info,
    user_id: UserId,
    gateway: Gateway,
    lease_seconds: Annotated[
        int, strawberry.argument(description="How long the lease lasts, in seconds: 1 to 300.")
    ] = 30,
) -> ClaimGatewayCustomerPayload:
    tokens, problems = info.context.begin(info.field_name), Problems()
    user = problems.parse("userId", values.user_id, user_id) or ""
    name = problems.parse("gateway", tokens.gateways.parse, gateway) or ""
    seconds = problems.parse("leaseSeconds", lease, lease_seconds) or MIN_LEASE
    problems.check()
    claimed = await claims.claim(tokens, user, name, seconds)
    claim = claimed.claim and GatewayCustomerClaim(
        idempotency_key=claimed.claim.idempotency_key,
        expires_at=claimed.claim.expires_at,
        acquired=claimed.claim.acquired,
        replaces=claimed.claim.replaces,
    )
    return ClaimGatewayCustomerPayload(gateway_token=payloads.shown(claimed.token), claim=claim, user_errors=[])


async def _release_claim(
    info: Info,
    user_id: UserId,
    gateway: Gateway,
    idempotency_key: Annotated[str, strawberry.argument(description="The key of the claim to release.")],
) -> ReleaseGatewayCustomerClaimPayload:
    tokens, problems = info.context.begin(info.field_name), Problems()
    user = problems.parse("userId", values.user_id, user_id) or ""
    name = problems.parse("gateway", tokens.gateways.parse, gateway) or ""
    key = problems.parse("idempotencyKey", values.well_formed, idempotency_key) or ""
    problems.check()
    released = await claims.release(tokens, user, name, key)
    return ReleaseGatewayCustomerClaimPayload(released=released, user_errors=[])


async def _reassign(
    info: Info,
    customers: Annotated[
        list[ReassignGatewayCustomerInput],
        strawberry.argument(description="At most 1,000 customers, each once, with their right users."),
    ],
    reason: Annotated[
        str | None, strawberry.argument(description="The reason, for the history: at most 2,000 characters.")
    ] = strawberry.UNSET,
) -> ReassignGatewayCustomersPayload:
    tokens, problems = info.context.begin(info.field_name), Problems()
    if len(customers) > MAX_BATCH:
        message = f"You can reassign at most {MAX_BATCH} customers at once; this list has {len(customers)}. Split it."
        raise InputError([Problem(Code.INVALID, message, ("customers",))])
    why = problems.parse("reason", lambda text: values.description(text, "reason"), optional(reason))
    wanted = [each.to_domain(problems, tokens.gateways, "customers", str(at)) for at, each in enumerate(customers)]
    try:
        problems.check()
        found = await reassigning.reassign(tokens, wanted, why)
    except InputError as refusal:
        errors = user_errors(refusal.problems)
        return ReassignGatewayCustomersPayload(gateway_tokens=[None] * len(customers), user_errors=errors)
    return ReassignGatewayCustomersPayload(gateway_tokens=list(map(payloads.shown, found)), user_errors=[])


async def _merge(
    info: Info,
    from_user_id: Annotated[strawberry.ID, strawberry.argument(description="The user whose tokens move.")],
    into_user_id: Annotated[strawberry.ID, strawberry.argument(description="The user who gets the tokens.")],
    on_conflict: Annotated[
        MergeConflictPolicy,
        strawberry.argument(description="What happens at gateways where both users have a customer."),
    ] = MergeConflictPolicy.FAIL,
    dry_run: Annotated[  # noqa: FBT002 - an argument of GraphQL is given by name
        bool, strawberry.argument(description="Return what a real run would return, and change nothing.")
    ] = False,
) -> MergeUserGatewayTokensPayload:
    tokens, problems = info.context.begin(info.field_name), Problems()
    problems.parse("fromUserId", values.stored_user_id, from_user_id)
    problems.parse("intoUserId", values.user_id, into_user_id)
    problems.check()
    merge = merging.Merge(from_user_id, into_user_id, on_conflict.value)
    if dry_run:
        merged, info.context.tokens = await merging.dry_run_merge(tokens, merge)
    else:
        merged = await merging.merge(tokens, merge)
    return MergeUserGatewayTokensPayload(
        user=payloads.user(into_user_id),
        moved=payloads.all_shown(merged.moved),
        conflicts=payloads.all_shown(merged.conflicts),
        winners=payloads.all_shown(merged.winners),
        user_errors=user_errors(merged.problems),
    )


async def _erase(info: Info, user_id: UserId) -> EraseUserGatewayTokensPayload:
    erased = await erasing.erase(info.context.begin(info.field_name), _user_id(user_id))
    return EraseUserGatewayTokensPayload(
        erased=[ErasedGatewayCustomer(gateway=name, gateway_customer_id=customer) for name, customer in erased],
        user_errors=[],
    )


async def _confirm_erasures(
    info: Info,
    customers: Annotated[list[GatewayCustomerInput], strawberry.argument(description="The customers, at most 1,000.")],
) -> ConfirmGatewayErasuresPayload:
    tokens = info.context.begin(info.field_name)
    if len(customers) > MAX_BATCH:
        message = f"You can confirm at most {MAX_BATCH} customers at once; this list has {len(customers)}. Split it."
        raise InputError([Problem(Code.INVALID, message, ("customers",))])
    pairs: list[tuple[str, str]] = []
    errors: list[UserError] = []
    for index, each in enumerate(customers):
        problems = Problems()
        pairs.append((problems.parse("gateway", tokens.gateways.parse, each.gateway) or "", each.gateway_customer_id))
        errors += user_errors(problems.refused().problems, "customers", str(index))
    if not values.is_well_formed("".join(customer for _, customer in pairs)):
        message = "A `gatewayCustomerId` contains a NUL character or a lone surrogate. Send well-formed Unicode."
        raise BadInputError(message)
    count = 0 if errors else await erasing.confirm(tokens, pairs)
    return ConfirmGatewayErasuresPayload(confirmed_count=count, user_errors=errors)


async def _lift_erasure(info: Info, user_id: UserId) -> LiftUserErasurePayload:
    await erasing.lift_erasure(info.context.begin(info.field_name), _user_id(user_id))
    return LiftUserErasurePayload(user=payloads.user(user_id), user_errors=[])


def _customer(tokens: Tokens, gateway: str, customer: str) -> tuple[str, str]:
    problems = Problems()
    name = problems.parse("gateway", tokens.gateways.parse, gateway) or ""
    problems.parse("gatewayCustomerId", values.gateway_customer_id, customer)
    problems.check()
    return name, customer


def _user_id(user_id: str) -> str:
    problems = Problems()
    problems.parse("userId", values.stored_user_id, user_id)
    problems.check()
    return user_id


@strawberry.type(
    description=(
        "Mutations for payment services, webhook handlers and admins. Errors that you can fix are in `userErrors`. "
        "Every mutation is safe to repeat; with `expectedVersion`, a repeated call that has already taken effect "
        "returns STALE."
    )
)
class Mutation:
    create_customer_gateway_token: CustomerGatewayTokenPayload = _mutation(
        _create,
        _unchanged("input"),
        (
            "Create a token. If the user already has this customer at this gateway, return the stored token "
            "unchanged, without an error."
        ),
    )
    save_customer_gateway_token: SaveCustomerGatewayTokenPayload = _mutation(
        _save,
        _unchanged("input", payload=SaveCustomerGatewayTokenPayload, created=False),
        "Create or update a user's token at a gateway.",
    )
    save_customer_gateway_tokens: SaveCustomerGatewayTokensPayload = _mutation(
        _save_many,
        _refused(SaveCustomerGatewayTokensPayload, gateway_tokens=[], created_count=0),
        "Save at most 1,000 tokens in one transaction, in input order.",
    )
    update_customer_gateway_token: CustomerGatewayTokenPayload = _mutation(
        _update, _unchanged("input"), "Change a token by its id."
    )
    activate_customer_gateway_token: CustomerGatewayTokenPayload = _mutation(
        _activate,
        _unchanged(),
        (
            "Activate a token. Deletions dated before this call are ignored, even if they are reported later. An "
            "active token is not changed otherwise."
        ),
    )
    deactivate_customer_gateway_token: CustomerGatewayTokenPayload = _mutation(
        _deactivate, _unchanged(), "Deactivate a token. An inactive token keeps its reason and version."
    )
    delete_customer_gateway_token: DeleteCustomerGatewayTokenPayload = _mutation(
        _delete,
        _not_deleted,
        (
            "Delete a token. Its customer id stays reserved for its user. If you repeat the call, it returns the same "
            "`deletedId`. If no token ever had this id, the error is NOT_FOUND."
        ),
    )
    deactivate_gateway_customer: CustomerGatewayTokenPayload = _mutation(
        _deactivate_customer,
        _unchanged(),
        (
            "Deactivate the token of a gateway customer, for example in a webhook handler, which has only the customer "
            "id. An unknown or inactive customer is not an error, because gateways can send events more than once, "
            "late or out of order."
        ),
    )
    verify_gateway_customer: CustomerGatewayTokenPayload = _mutation(
        _verify_customer,
        _unchanged(),
        (
            "Record that the gateway confirmed that a customer exists. For an unknown customer, the error is "
            "NOT_FOUND, but the report is kept for 90 days and takes effect when the customer is saved."
        ),
    )
    claim_gateway_customer: ClaimGatewayCustomerPayload = _mutation(
        _claim,
        _refused(ClaimGatewayCustomerPayload, gateway_token=None, claim=None),
        (
            "Claim the creation of a user's customer. Call this before you create a customer at a gateway: the result "
            "says whether you may create it, and with which idempotency key."
        ),
    )
    release_gateway_customer_claim: ReleaseGatewayCustomerClaimPayload = _mutation(
        _release_claim,
        _refused(ReleaseGatewayCustomerClaimPayload, released=False),
        (
            "Release a claim whose key is no longer usable, for example because the gateway stored a failure for it. "
            "The next claim gets a new key."
        ),
    )
    reassign_gateway_customers: ReassignGatewayCustomersPayload = _mutation(
        _reassign,
        _refused(ReassignGatewayCustomersPayload, gateway_tokens=[]),
        (
            "Move customers that were saved for the wrong users, all or none of them. The moves are applied "
            "together, so you can swap two users' customers. If a user would then have two customers at a gateway, "
            "neither of them deleted by it, the error is ALREADY_EXISTS. Requires the admin scope."
        ),
    )
    merge_user_gateway_tokens: MergeUserGatewayTokensPayload = _mutation(
        _merge,
        _refused(MergeUserGatewayTokensPayload, user=None, moved=[], conflicts=[], winners=[]),
        (
            "Move one user's tokens to another, for example when a guest registers. All or nothing. Requires the admin "
            "scope."
        ),
    )
    erase_user_gateway_tokens: EraseUserGatewayTokensPayload = _mutation(
        _erase,
        _refused(EraseUserGatewayTokensPayload, erased=[]),
        (
            "Erase a user: delete their tokens and former customer ids, and remove personal data from the history. "
            "Saving tokens for this user is then refused with ERASED. Requires the admin scope."
        ),
    )
    confirm_gateway_erasures: ConfirmGatewayErasuresPayload = _mutation(
        _confirm_erasures,
        _refused(ConfirmGatewayErasuresPayload, confirmed_count=0),
        (
            "Confirm that you deleted erased users' customers at their gateways. Customers that are not on the list "
            "are ignored. Requires the admin scope."
        ),
    )
    lift_user_erasure: LiftUserErasurePayload = _mutation(
        _lift_erasure,
        _refused(LiftUserErasurePayload, user=None),
        "Allow tokens of an erased user to be saved again. Requires the admin scope.",
    )
