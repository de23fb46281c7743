"""What callers are told of errors, and what only the log is told."""

import pytest

from tests.web.conftest import token
from tests.web.standin import SECRET

TOLD = {
    "UnauthenticatedError": ("UNAUTHENTICATED", "Who are you?"),
    "ForbiddenError": ("FORBIDDEN", "You may not."),
    "BadInputError": ("BAD_USER_INPUT", "That is no cursor of ours."),
    "InputError": ("BAD_USER_INPUT", "A gateway is a name."),
    "UnavailableError": ("UNAVAILABLE", "The database is unavailable right now. Send the request again."),
    "UnchangedError": (
        "UNAVAILABLE",
        "Other changes took too long, and nothing was changed. Send the request again.",
    ),
    "coded": ("LIMIT_EXCEEDED", "Too much of it."),
    "card": ("BAD_USER_INPUT", "… is no cursor of ours."),
}


def ask(web, text, **rest):
    return web.post("/graphql", json={"query": text, **rest}, headers={"x-request-id": "abc"})


@pytest.mark.parametrize("field", ["fail", "failLater"])
@pytest.mark.parametrize("how", TOLD)
async def test_what_the_caller_can_do_something_about_is_said(web, field, how):
    response = await ask(web, f'{{ {field}(how: "{how}") }}')
    [error] = response.json()["errors"]
    code, message = TOLD[how]
    assert error["extensions"] == {"code": code, "help": f"/help/errors#{code.lower()}"}
    assert error["message"] == message
    assert error["path"] == [field]
    assert response.json()["data"] == {field: None}


INTERNAL = {"code": "INTERNAL", "help": "/help/errors#internal", "requestId": "abc"}


async def test_a_mutation_that_fails_without_the_database_may_have_changed_something(web):
    asked = [{"query": f'{kind} {{ fail(how: "UnavailableError") }}'} for kind in ("mutation", "query")]
    answers = [(await web.post("/graphql", json=each)).json() for each in asked]
    assert (await web.post("/graphql", json=asked)).json() == answers
    query = TOLD["UnavailableError"][1]
    mutation = query.removesuffix(".") + "; its change may already have been made."
    assert [answer["errors"][0]["message"] for answer in answers] == [mutation, query]


UNEXPECTED = {
    **{how: f'{{ fail(how: "{how}") }}' for how in ("ValueError", "uncoded", "RecursionError", "TimeoutError")},
    "later": '{ failLater(how: "ValueError") }',
    "an unknown failure": '{ fail(how: "unheard of") }',
    "null where none may be": "{ nothing }",
    "a number too large": "{ huge }",
}


@pytest.mark.parametrize("text", UNEXPECTED.values(), ids=UNEXPECTED)
async def test_the_unexpected_is_answered_with_nothing_but_the_requests_id(web, text):
    response = await ask(web, text)
    assert response.status_code == 200
    [error] = response.json()["errors"]
    assert error["extensions"] == INTERNAL
    assert error["message"] == "Internal error. The service's log has the details under this request id."


async def test_the_unexpected_is_logged_once_with_where_it_happened_and_without_what_it_said(web, log):
    await ask(web, '{ a: fail(how: "ValueError") b: fail(how: "ValueError") }')
    [line] = [line for line in log() if line["event"] == "unexpected error"]
    assert line["request_id"] == "abc"
    assert line["fields"] == ["a", "b"]
    assert "standin.py" in line["exception"]
    assert "ValueError" in line["exception"]
    assert SECRET not in str(log())


async def test_outages_are_logged_as_such(web, log):
    await ask(web, '{ fail(how: "UnavailableError") }')
    assert [line["event"] for line in log()] == ["unavailable", "request"]


async def test_denials_are_logged_with_who_and_what(web, log):
    headers = {"authorization": token("u7"), "x-request-id": "abc"}
    await web.post("/graphql", json={"query": '{ a: fail(how: "ForbiddenError") }'}, headers=headers)
    [line] = [line for line in log() if line["event"] == "denied"]
    assert line["level"] == "warning"
    assert (line["caller"], line["fields"], line["code"], line["request_id"]) == ("u7", ["a"], "FORBIDDEN", "abc")


async def test_an_explicit_null_for_an_argument_that_has_a_default_is_the_callers_mistake(web):
    response = await ask(web, "query($s: Size = SMALL) { measure(size: $s) }", variables={"s": None})
    [error] = response.json()["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert error["message"].startswith("Argument 'size'")


@pytest.mark.parametrize(
    ("text", "variables"),
    [("{ weird(weird: 1) }", None), ("query($w: Weird!) { weird(weird: $w) }", {"w": 1})],
)
async def test_what_a_scalar_raises_is_not_said(web, text, variables):
    response = await ask(web, text, variables=variables)
    [error] = response.json()["errors"]
    assert SECRET not in error["message"]
    assert "Expected value of type 'Weird" in error["message"]


async def test_a_message_quotes_what_was_sent_but_no_card_number(web):
    asked = "query($s: Size!) { measure(size: $s) }"
    assert "TINY-7" in (await ask(web, asked, variables={"s": "TINY-7"})).text
    for number in ("4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111"):
        answered = (await ask(web, asked, variables={"s": number})).text
        assert "1111" not in answered
        assert "1111" not in (await ask(web, f'{{ measure(size: "{number}") }}')).text


async def test_an_exception_of_our_own_making_is_answered_in_the_same_way(web, log, monkeypatch):
    def prepare(*_):
        raise ValueError(SECRET)

    monkeypatch.setattr("graphql_api.engine.Engine.prepare", prepare)
    response = await ask(web, "{ hello }")
    assert response.status_code == 500
    assert response.json()["errors"][0]["extensions"] == INTERNAL
    assert [line["event"] for line in log()] == ["unexpected error", "request"]
    assert SECRET not in response.text + str(log())
