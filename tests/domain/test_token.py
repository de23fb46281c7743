"""What may become of a token: every change counts its version up, and no change does not."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.domain import token as tokens
from graphql_api.domain.token import Action, Changes, DeactivationReason, Edit, Given

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ID = "0198f2a0-0000-7000-8000-000000000000"


def new(**edit):
    return tokens.created(ID, "u1", "STRIPE", Edit("cus_1", **edit), NOW, Action.CREATED).token


edits = st.builds(
    Edit,
    gateway_customer_id=st.sampled_from([None, "cus_1", "cus_2"]),
    description=st.sampled_from([None, Given(None), Given("x")]),
    metadata=st.sampled_from([None, Given(None), Given({"a": 1}), Given({"a": True})]),
    is_active=st.sampled_from([None, True, False]),
    deactivation_reason=st.sampled_from([DeactivationReason.OTHER, DeactivationReason.FRAUD]),
    deactivated_at=st.sampled_from([None, NOW]),
)


@given(st.lists(edits, max_size=6), st.lists(st.integers(-5, 5), min_size=6, max_size=6))
def test_an_edit_takes_effect_once_and_counts_as_one_change(some, seconds):
    token = new()
    for edit, shift in zip(some, seconds, strict=False):
        event = tokens.edited(token, edit, NOW + timedelta(seconds=shift))
        if event is None:
            continue
        assert event.token.version == token.version + 1
        assert event.token.updated_at > token.updated_at  # whatever the clocks say
        assert event.token.is_active is (event.token.deactivated_at is None)
        assert event.token.is_active is (event.token.deactivation_reason is None)
        token = event.token
        assert tokens.edited(token, edit, NOW + timedelta(days=1)) is None


def test_a_new_token_names_its_customer():
    with pytest.raises(TypeError):
        tokens.created(ID, "u1", "STRIPE", Edit(), NOW, Action.CREATED)


def test_an_inactive_token_is_not_deactivated_again():
    token = tokens.deactivated(new(), DeactivationReason.FRAUD, NOW).token
    assert (token.is_active, token.deactivation_reason) == (False, "FRAUD")
    assert tokens.deactivated(token, DeactivationReason.OTHER, NOW) is None


def test_a_change_of_a_new_token_is_written_with_it_and_both_identifiers_are_reserved():
    changes = Changes()
    token = changes.create(tokens.created(ID, "u1", "STRIPE", Edit("cus_1"), NOW, Action.CREATED))
    after = changes.change(token, tokens.edited(token, Edit("cus_2"), NOW))
    assert (changes.created, changes.changed) == ({ID: after}, {})
    assert changes.identifiers == {("STRIPE", "cus_1"): "u1", ("STRIPE", "cus_2"): "u1"}
    assert [event.action for event in changes.events] == [Action.CREATED, Action.REPLACED]
