"""What saves do in one statement: read tokens, and change their texts."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from graphql_api.domain.inputs import Save
from graphql_api.storage.connection import Statement
from graphql_api.storage.selects import ALL

_COLUMNS = ", ".join(ALL)
_TOKEN = ", ".join(f"t.{name}" for name in ALL)
_OBJECT = {
    "user_id": "text",
    "gateway": "text",
    "customer": "text",
    "expected_version": "integer",
    "is_active": "boolean",
    "gives_description": "boolean",
    "description": "text",
    "gives_metadata": "boolean",
    "metadata": "jsonb",
    "at": "timestamptz",
    "actor": "text",
    "call_id": "bigint",
}
# Arguments: saves as JSON, and the action. Answers each token that is there, as it is now, with the database's time,
# and whether this changed it: if only its description or metadata changes, as `domain.token.edited` would. A token that
# has changed since the given time stays, so a second run, because an answer was lost, changes nothing again. Rows are
# locked as by `CHANGE`, with such a limit, too.
SAVE = Statement(
    "save",
    f"""
    with found as (
      select {_TOKEN}, clock_timestamp() as now, new.at, actor, call_id, place,
        case when gives_description then new.description else t.description end as new_description,
        case when gives_metadata then new.metadata else t.metadata end as new_metadata,
        t.gateway_customer_id = customer and t.version = coalesce(expected_version, t.version)
          and t.is_active = coalesce(new.is_active, t.is_active) and t.updated_at < new.at
          and (gives_description and t.description is distinct from new.description
            or gives_metadata and t.metadata is distinct from new.metadata) as changes
      from (
        select * from rows from (
          jsonb_to_recordset($1::jsonb) as ({", ".join(f"{name} {type_}" for name, type_ in _OBJECT.items())})
        ) with ordinality as new({", ".join(_OBJECT)}, place) limit jsonb_array_length($1)
      ) as new join customer_gateway_tokens t on t.user_id = new.user_id and t.gateway = new.gateway
      order by t.id
    ), changed as (
      update customer_gateway_tokens t
      set description = new_description, metadata = new_metadata, version = t.version + 1, updated_at = at
      from found where changes and (select set_config('lock_timeout', '50ms', true)) is not null
        and t.user_id = found.user_id and t.id = found.id and t.version = found.version
      returning {_TOKEN}, now, actor, call_id, place
    ), recorded as (
      insert into customer_gateway_token_events
        (token_id, version, user_id, gateway, gateway_customer_id, is_active, at, action, actor, call_id)
      select id, version, user_id, gateway, gateway_customer_id, is_active, updated_at, $2, actor, call_id from changed
    )
    select {_COLUMNS}, now, place - 1 as index, true as is_saved from changed
    union all
    select {_COLUMNS}, now, place - 1, false from found where place not in (select place from changed)
    """,  # noqa: S608 - names of ours
    # It only reads: `CHANGE` makes the change.
    sql_distributed=f"""
    select {_TOKEN}, clock_timestamp() as now, place - 1 as index, false as is_saved
    from jsonb_array_elements($1::jsonb) with ordinality as new(save, place)
    cross join lateral token_at(save ->> 'user_id', save ->> 'gateway') t where $2::text is not null
    """,  # noqa: S608 - names of ours
)


@dataclass(slots=True, eq=False)
class SaveRequest:
    """A save, when and by whom it changes a token, and the number by which its history entry is found."""

    save: Save
    at: datetime
    actor: str
    call_id: int


def save_object(request: SaveRequest) -> dict[str, Any]:
    """What `SAVE` takes for this request."""
    save, edit = request.save, request.save.edit
    return {
        "user_id": save.user_id,
        "gateway": save.gateway,
        "customer": edit.gateway_customer_id,
        "expected_version": save.expected_version,
        "is_active": edit.is_active,
        "gives_description": edit.description is not None,
        "description": edit.description and edit.description.value,
        "gives_metadata": edit.metadata is not None,
        "metadata": edit.metadata and edit.metadata.value,
        "at": request.at,
        "actor": request.actor,
        "call_id": request.call_id,
    }
