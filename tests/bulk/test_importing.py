"""`gateway-tokens import`: what a file says is stored by the rules of the mutations, and what cannot be is named."""

import gc
import gzip
import json
import os
import re
import threading
from pathlib import Path
from time import perf_counter
from uuid import UUID

import pytest

from graphql_api.bulk.importing import import_tokens
from graphql_api.domain.errors import InputError
from graphql_api.domain.inputs import Gateways
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore
from tests.bulk.records import many, token
from tests.graph import token_of

CARD = "4111 1111 1111 1111"
COUNT = "select count(*) from customer_gateway_tokens"
FILE = b"userId,gateway,gatewayCustomerId\nu-1,STRIPE,cus_1\nu-2,?,cus_2\n"


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
async def test_a_minimal_file_makes_tokens_with_their_history_and_identifiers(command, write, table, ending):
    outcome = await command("import", write(f"t.{ending}", token(), token("u2", " paypal", "p_2")))
    assert (outcome.status, outcome.out, outcome.err) == (0, "", f"import t.{ending}: 2 created\n")
    stored = await table(
        "select user_id, gateway, gateway_customer_id, is_active, version from customer_gateway_tokens"
    )
    assert sorted(stored) == [("u1", "STRIPE", "cus_1", True, 1), ("u2", "PAYPAL", "p_2", True, 1)]
    lines = await table(
        "select user_id, action, actor, version, reason from customer_gateway_token_events"
        " where token_id = any(array(select id from customer_gateway_tokens)) order by 1"
    )
    assert lines == [
        ("u1", "IMPORTED", "import", 1, None),
        ("u2", "IMPORTED", "import", 1, None),
    ]
    assert await table("select user_id, gateway from gateway_customers order by 1") == [
        ("u1", "STRIPE"),
        ("u2", "PAYPAL"),
    ]


async def test_ids_are_made_in_the_order_of_time(command, write, table):
    await command("import", write("t.csv", *many(3)))
    ids = [row[0] for row in await table("select id from customer_gateway_tokens order by gateway_customer_id")]
    assert ids == sorted(ids)
    assert {UUID(str(token_id)).version for token_id in ids} == {7}


async def test_the_same_file_again_takes_about_as_long_before_postgresql_has_statistics(command, write):
    file = write("t.csv", *many(20_000))
    seconds = []
    for said in ("created", "unchanged"):
        began = perf_counter()
        assert (await command("import", file)).err.endswith(f"import t.csv: 20,000 {said}\n")
        seconds.append(perf_counter() - began)
    assert seconds[1] < 5 * seconds[0]


async def test_the_same_file_again_changes_nothing(command, write, everything):
    file = write(
        "t.jsonl", token(description="d", metadata={"a": [1, None, "ü"]}, isActive=False), token("u2", "A", "c")
    )
    await command("import", file)
    before = await everything()
    outcome = await command("import", file)
    assert (outcome.status, outcome.err) == (0, "import t.jsonl: 2 unchanged\n")
    assert await everything() == before


async def test_names_of_columns_may_be_in_snake_case(command, folder, table):
    (folder / "t.csv").write_text(
        "gateway_customer_id,user_id,gateway,is_active,last_verified_at\ncus_1,u1,STRIPE,f,2026-01-02T03:04:05+01:00\n"
    )
    assert (await command("import", "t.csv")).status == 0
    stored = await table("select is_active, deactivation_reason, last_verified_at::text from customer_gateway_tokens")
    assert stored == [(False, "OTHER", "2026-01-02 02:04:05+00")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (token(user=""), [("userId", "INVALID")]),
        (token(user="u" * 256), [("userId", "INVALID")]),
        (token(user="u\0"), [("userId", "INVALID")]),
        (token(user=None), [("userId", "INVALID")]),
        ({"gateway": "STRIPE"}, [("userId", "INVALID"), ("gatewayCustomerId", "INVALID")]),
        (token(gateway="1"), [("gateway", "INVALID")]),
        (token(gateway=5), [("gateway", "INVALID")]),
        (token(customer="a b"), [("gatewayCustomerId", "INVALID")]),
        (token(customer=CARD.replace(" ", "")), [("gatewayCustomerId", "CARD_NUMBER")]),
        (token(description=CARD), [("description", "CARD_NUMBER")]),
        (token(description=5), [("description", "INVALID")]),
        (token(metadata={"a": {"b": int(CARD.replace(" ", ""))}}), [("metadata", "CARD_NUMBER")]),
        (token(metadata=[1]), [("metadata", "INVALID")]),
        (token(metadata={"a": "x" * 16384}), [("metadata", "INVALID")]),
        (token(isActive=None), [("isActive", "INVALID")]),
        (token(isActive="yes"), [("isActive", "INVALID")]),
        (token(id="7"), [("id", "INVALID")]),
        (token(version=0), [("version", "INVALID")]),
        (token(version=2**31), [("version", "INVALID")]),
        (token(version=True), [("version", "INVALID")]),
        (token(createdAt="2026-01-01T00:00:00"), [("createdAt", "INVALID")]),
        (token(createdAt="0001-01-01T00:00:00+14:00"), [("createdAt", "INVALID")]),
        (token(lastVerifiedAt=1), [("lastVerifiedAt", "INVALID")]),
        (token(createdAt="2026-01-02T00:00:00Z", updatedAt="2026-01-01T00:00:00Z"), [("updatedAt", "INVALID")]),
        (token(deactivatedAt="2026-01-02T00:00:00Z"), [("deactivatedAt", "INVALID")]),
        (token(isActive=True, deactivationReason="FRAUD"), [("deactivationReason", "INVALID")]),
        (token(isActive=False, deactivationReason="WHIM"), [("deactivationReason", "INVALID")]),
        (token(formerGatewayCustomerIds=["a", 5]), [("formerGatewayCustomerIds", "INVALID")]),
        (token(formerGatewayCustomerIds="a"), [("formerGatewayCustomerIds", "INVALID")]),
        (token(formerGatewayCustomerIds=[CARD.replace(" ", "")]), [("formerGatewayCustomerIds", "CARD_NUMBER")]),
        (token(colour="red"), [("", "INVALID")]),
        ([1], [("", "INVALID")]),
        (
            token(user="", gateway="", description=CARD, version=0),
            [("userId", "INVALID"), ("gateway", "INVALID"), ("description", "CARD_NUMBER"), ("version", "INVALID")],
        ),
    ],
)
async def test_a_line_that_breaks_a_rule_is_named_with_all_that_is_wrong_and_the_rest_goes_in(
    command, write, reasons, folder, table, line, expected
):
    outcome = await command("import", write("t.jsonl", token("u8", "A", "before"), line, token("u9", "A", "after")))
    assert outcome.status == 1
    assert outcome.err == "import t.jsonl: 2 created, 1 rejected; reasons are in t.jsonl.rejects.jsonl\n"
    assert sorted(reasons("t.jsonl.rejects.jsonl")) == sorted((2, field, code) for field, code in expected)
    assert "4111" not in (folder / "t.jsonl.rejects.jsonl").read_text()
    stored = await table("select gateway_customer_id from customer_gateway_tokens order by 1")
    assert stored == [("after",), ("before",)]


async def test_lines_that_are_no_records_are_named_and_spoil_no_other(command, folder, reasons):
    (folder / "t.csv").write_bytes(
        b"\xef\xbb\xbfuserId,gateway,gatewayCustomerId,description\r\n"
        b"u1,STRIPE,cus_1,ok\r\n"
        b'u2,STRIPE,cus_2,"never closed\r\n'
        b'u3,STRIPE,cus_3,"closed, and\r\nover two ""lines"""\r\n'
        b"u4,STRIPE\r\n"
        b"\r\n"
        b"u5,STRIPE,cus_5,\xff\r\n"
        b"u6,STRIPE,cus_6,\xc3\xa4\r\n"
        b'u7,STRIPE,cus_7,"'
    )
    outcome = await command("import", "t.csv", "--rejects", "why.csv", "--encoding", "utf-8")
    assert outcome.err == "import t.csv: 3 created, 4 rejected; reasons are in why.csv\n"
    assert reasons("why.csv") == [
        (3, "", "INVALID"),
        (6, "", "INVALID"),
        (8, "", "INVALID"),
        (10, "", "INVALID"),
    ]
    (folder / "t.jsonl").write_bytes(
        b'{"userId": "u8", "gateway": "A", "gatewayCustomerId": "c8"}\n'
        b"\n"
        b'{"userId": "u9", "gateway": "A"\n'
        b'{"userId": "\xff", "gateway": "A", "gatewayCustomerId": "c9"}\n' + b"[" * 5000 + b"\n"
    )
    outcome = await command("import", "t.jsonl", "--encoding", "utf-8")
    assert outcome.err.startswith("import t.jsonl: 1 created, 3 rejected")
    assert reasons("t.jsonl.rejects.jsonl") == [(3, "", "INVALID"), (4, "", "INVALID"), (5, "", "INVALID")]


async def test_an_empty_text_is_not_nothing(command, folder, table):
    (folder / "t.csv").write_text(
        "userId,gateway,gatewayCustomerId,description,metadata,isActive\n"
        'u1,A,c1,"","{""a"": """"}",\n'
        '"u2","A","c2","","",""\n'
        "u3,A,c3,,,\n"
        'u4,A,c4,x,"{""a"": ["""", """"]}",true\n'
    )
    assert (await command("import", "t.csv")).status == 0
    stored = await table("select description, metadata from customer_gateway_tokens order by user_id")
    assert stored == [("", '{"a": ""}'), ("", None), (None, None), ("x", '{"a": ["", ""]}')]


async def test_what_a_file_leaves_out_stays_and_what_is_empty_is_cleared(command, write, folder, table):
    await command("import", write("t.jsonl", token(description="d", metadata={"a": 1}, isActive=False)))
    outcome = await command("import", write("t.csv", token()))
    assert outcome.err == "import t.csv: 1 unchanged\n"
    (folder / "t.csv").write_text(
        "userId,gateway,gatewayCustomerId,description,metadata,isActive\nu1,STRIPE,cus_1,,,\n"
    )
    outcome = await command("import", "t.csv")
    assert outcome.err == "import t.csv: 1 changed\n"
    stored = await table("select description, metadata, is_active, version from customer_gateway_tokens")
    assert stored == [(None, None, False, 2)]
    assert await table("select version, action, actor from customer_gateway_token_events order by 1") == [
        (1, "IMPORTED", "import"),
        (2, "IMPORTED", "import"),
    ]


async def test_what_is_taken_is_refused_as_by_a_mutation(command, write, reasons, graph):
    await graph.save("u1", "STRIPE", "cus_1")
    await graph.save("u1", "STRIPE", "cus_2", replaces="cus_1")
    await graph.delete(await graph.saved("u3", "STRIPE", "cus_3"))
    await graph.save("u4", "STRIPE", "cus_4")
    await graph.erase("u4")
    file = write(
        "t.jsonl",
        token("u1", customer="cus_9"),
        token("u2", customer="cus_1"),
        token("u2", customer="cus_2"),
        token("u2", customer="cus_3"),
        token("u2", customer="cus_8", formerGatewayCustomerIds=["cus_1"]),
        token("u4", customer="cus_4"),
        token("u3", customer="cus_3"),
        token("u2", customer="cus_2b"),
    )
    assert (await command("import", file)).err.startswith("import t.jsonl: 2 created, 6 rejected")
    assert reasons("t.jsonl.rejects.jsonl") == [
        (1, "gatewayCustomerId", "ALREADY_EXISTS"),
        (2, "gatewayCustomerId", "CUSTOMER_TAKEN"),
        (3, "gatewayCustomerId", "CUSTOMER_TAKEN"),
        (4, "gatewayCustomerId", "CUSTOMER_TAKEN"),
        (5, "formerGatewayCustomerIds", "CUSTOMER_TAKEN"),
        (6, "userId", "ERASED"),
    ]
    # Whoever was refused reserved nothing.
    assert (await graph.save("u7", "STRIPE", "cus_9"))["userErrors"] == []
    assert (await graph.save("u8", "STRIPE", "cus_8"))["userErrors"] == []


async def test_an_id_is_never_used_for_two_tokens(command, write, reasons, graph):
    gone = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.delete(gone)
    there = await graph.saved("u2", "STRIPE", "cus_2")
    new = "0192f0c1-0000-7000-8000-000000000000"
    file = write(
        "t.jsonl",
        token("u1", customer="cus_1", id=gone["id"]),
        token("u3", customer="cus_3", id=there["id"]),
        token("u4", customer="cus_4", id=new.upper()),
        token("u5", customer="cus_5", id=new),
        token("u2", customer="cus_2", id=new),
    )
    assert (await command("import", file)).err.startswith("import t.jsonl: 1 created, 1 unchanged, 3 rejected")
    assert reasons("t.jsonl.rejects.jsonl") == [(1, "id", "INVALID"), (2, "id", "INVALID"), (4, "id", "INVALID")]
    assert (await graph.save("u6", "STRIPE", "cus_3"))["userErrors"] == []


async def test_an_id_that_a_token_had_is_not_used_where_all_else_is_new_either(command, write, reasons, graph):
    gone = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.delete(gone)
    file = write("t.jsonl", token("u8", customer="cus_8"), token("u9", customer="cus_9", id=gone["id"], version=7))
    assert (await command("import", file)).err.startswith("import t.jsonl: 1 created, 1 rejected")
    assert reasons("t.jsonl.rejects.jsonl") == [(2, "id", "INVALID")]
    assert await graph.customer("STRIPE", "cus_9") is None


async def test_the_past_of_a_token_comes_with_it_and_its_history_says_when_it_came(command, write, graph, table):
    file = write(
        "t.jsonl",
        token(
            id="0192f0c1-0000-7000-8000-000000000000",
            isActive=False,
            createdAt="2024-01-01T00:00:00Z",
            updatedAt="2024-06-01T00:00:00.000001+00:00",
            version=7,
            activatedAt="2024-02-01T00:00:00Z",
            deactivatedAt="2024-05-01T00:00:00Z",
            deactivationReason="FRAUD",
            lastVerifiedAt="2024-03-01T00:00:00Z",
            formerGatewayCustomerIds=["z", "a", "m"],
        ),
    )
    await command("import", file)
    stored = await graph.customer("STRIPE", "m")
    assert stored == {
        "id": "0192f0c1-0000-7000-8000-000000000000",
        "userId": "u1",
        "gateway": "STRIPE",
        "gatewayCustomerId": "cus_1",
        "description": None,
        "metadata": None,
        "isActive": False,
        "createdAt": "2024-01-01T00:00:00.000000+00:00",
        "updatedAt": "2024-06-01T00:00:00.000001+00:00",
        "version": 7,
        "deactivatedAt": "2024-05-01T00:00:00.000000+00:00",
        "deactivationReason": "FRAUD",
        "lastVerifiedAt": "2024-03-01T00:00:00.000000+00:00",
        "formerGatewayCustomerIds": ["z", "a", "m"],
    }
    assert await table(
        "select version, reason, now() - at < interval '1 minute' from customer_gateway_token_events"
    ) == [(7, "FRAUD", True)]
    await graph.save("u1", "STRIPE", "cus_2", replaces="cus_1")
    assert (await graph.customer("STRIPE", "cus_2"))["formerGatewayCustomerIds"] == ["z", "a", "m", "cus_1"]


async def test_a_first_customer_that_is_imported_ends_its_claim(command, write, graph):
    first = await graph.claim("u1", "STRIPE", leaseSeconds=300)
    await command("import", write("t.csv", token()))
    await graph.delete((await graph.claim("u1", "STRIPE", leaseSeconds=300))["gatewayToken"])
    second = await graph.claim("u1", "STRIPE", leaseSeconds=300)
    assert second["claim"]["idempotencyKey"] != first["claim"]["idempotencyKey"]


async def test_an_empty_gateway_is_called_empty(command, write, folder):
    await command("import", write("t.csv", token(gateway="")))
    assert "gateway is required." in (folder / "t.csv.rejects.csv").read_text()


async def test_the_gateways_that_an_operator_allows_are_the_only_ones(command, write, reasons, monkeypatch):
    monkeypatch.setenv("GATEWAYS", "PAYPAL")
    await command("import", write("t.csv", token(), token("u2", "paypal")))
    assert reasons("t.csv.rejects.csv") == [(2, "gateway", "INVALID")]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.txt", "", "The file is empty."),
        ("t.csv", "", "The file is empty."),
        ("t.csv", "\n ,,\n", "The file is empty."),
        (
            "t.csv",
            "x\n",
            (
                "The columns userId, gateway and gatewayCustomerId are missing. Map them with --column userId=COLUMN, "
                "--column gateway=COLUMN, --column gatewayCustomerId=COLUMN, or set one gateway for all lines with "
                "--gateway. The file has the columns 'x'."
            ),
        ),
        (
            "t.csv",
            "userId,gateway\n",
            "The column gatewayCustomerId is missing. Map it with --column gatewayCustomerId=COLUMN.",
        ),
        (
            "t.csv",
            "userId,user_id,gateway,gatewayCustomerId\n",
            "The columns 'userId' and 'user_id' may both be userId. Say which with --column userId=COLUMN.",
        ),
        (
            "t.csv",
            "userId,gateway,gatewayCustomerId,metdata\n",
            "The column 'metdata' is none of",
        ),
        (
            "t.csv",
            '"userId',
            "The first line does not name the columns: the quotation mark that opens in line 1 is not closed.",
        ),
        (None, None, "Invalid value for 'FILE': t.csv does not exist or is not readable."),
    ],
)
async def test_a_file_that_cannot_be_understood_is_a_wrong_call(command, folder, name, content, says):
    if name:
        (folder / name).write_text(content)
    outcome = await command("import", name or "t.csv")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert says in outcome.err
    assert not list(folder.glob("*.rejects.csv"))


@pytest.mark.parametrize("options", [[], ["--check"], ["--rejects", "note.txt"], ["--check", "--rejects", "note.txt"]])
async def test_only_a_rejected_line_overwrites_the_file_for_rejects(command, write, folder, options):
    path = folder / (options[-1] if "note.txt" in options else "t.csv.rejects.csv")
    path.write_text("my corrections\n")
    path.chmod(0o640)
    outcome = await command("import", write("t.csv", token()), *options)
    assert (outcome.status, path.read_text(), path.stat().st_mode & 0o777) == (0, "my corrections\n", 0o640)
    done = "would create 1" if "--check" in options else "1 created"
    assert outcome.err.endswith(f"{done}; {path.name} is not of this run\n")
    assert (await command("import", write("t.csv", token(gateway="?")), *options)).status == 1
    assert path.read_text().startswith("line,field,code")
    assert path.stat().st_mode & 0o777 == 0o600


async def test_rejects_never_take_the_place_of_a_device(command, write, folder):
    os.mkfifo("pipe")
    outcome = await command("import", write("t.csv", token(gateway="?")), "--rejects", "pipe")
    assert (outcome.status, (folder / "pipe").is_fifo()) == (2, True)
    assert "--rejects pipe is no regular file" in outcome.err


async def test_a_pipe_is_read_to_its_end(command, folder, reasons):
    lines = "".join(f"{json.dumps(record)}\n" for record in [*many(3), token(gateway="?")])
    outcome = await command("import", "-", "--format", "jsonl", stdin=lines.encode())
    assert outcome.err == "import -: 3 created, 1 rejected; reasons are in stdin.rejects.jsonl\n"
    assert reasons("stdin.rejects.jsonl") == [(4, "gateway", "INVALID")]


async def test_rejected_lines_can_be_corrected_and_imported_as_they_are(command, folder, graph, table):
    await graph.save("u1", "STRIPE", "cus_1")
    lines = [
        token("u2", customer="cus_1", description="a, b", metadata={"n": [1, None]}, isActive=False),
        token("u3", customer="cus 3", description="", metadata=None),
        token("u4", customer=CARD.replace(" ", ""), description=CARD),
        token("u5", "?", "cus_5"),
    ]
    (folder / "t.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "t.csv").write_text(
        "userId,gateway,gatewayCustomerId,description,metadata,isActive\n"
        'u2,STRIPE,cus_1,"a, b","{""n"": [1, null]}",false\n'
        'u3,STRIPE,cus 3,"",,\n'
        f"u4,STRIPE,{CARD},{CARD},,\nu5,?,cus_5,,,\n"
    )
    for ending in ("jsonl", "csv"):
        name = f"t.{ending}.rejects.{ending}"
        assert "4 rejected" in (await command("import", f"t.{ending}")).err
        path = folder / name
        assert "4111" not in path.read_text()
        assert path.stat().st_mode & 0o777 == 0o600
        assert "Correct userId or gatewayCustomerId." in path.read_text()
        corrected = path.read_text()
        for wrong, right in {"cus_1": "c2", "cus 3": "c3", "cus_5": "c5", "?": "A"}.items():
            corrected = corrected.replace(wrong, right.replace("c", f"{ending}_"))
        path.write_text(re.sub(r"u([235])\b", rf"{ending} u\1", corrected))
        outcome = await command("import", name)
        assert "3 created, 1 rejected" in outcome.err
        stored = await table(
            "select description, metadata, is_active from customer_gateway_tokens where user_id ^@ $1 order by user_id",
            ending,
        )
        assert stored == [("a, b", '{"n": [1, null]}', False), ("", None, True), (None, None, True)]


async def test_rejected_lines_lose_nothing_and_take_the_options_of_the_first_import(command, folder, table):
    (folder / "t.csv").write_bytes('Kunde;Nr;Note\nü1;cus 1;é\nu2;cus_2\nu3;cus_3;x""y\nu4;c"4;\n'.encode("cp1252"))
    options = [
        "--gateway",
        "STRIPE",
        "--encoding",
        "cp1252",
        "--column",
        "userId=Kunde",
        "--column",
        "description=Note",
    ]
    options += ["--column", "gatewayCustomerId=Nr"]
    await command("import", "t.csv", *options)
    path = folder / "t.csv.rejects.csv"
    corrected = path.read_text(encoding="utf-8-sig")
    assert "u2;cus_2" in corrected
    path.write_text(corrected.replace("cus 1", "cus_1"), encoding="utf-8-sig")
    outcome = await command("import", path.name, *options)
    assert "1 created" in outcome.err
    stored = "select user_id, gateway_customer_id, description from customer_gateway_tokens where user_id = 'ü1'"
    assert await table(stored) == [("ü1", "cus_1", "é")]


async def test_rejected_json_keeps_its_numbers_and_its_text(command, folder):
    number = "12345678901234567890123"
    lines = (
        f'{{"userId": "u1", "gateway": "A", "gatewayCustomerId": "c", "metadata": {{"n": {number}}}}}\n{{"userId": }}\n'
    )
    (folder / "t.jsonl").write_text(lines)
    await command("import", "t.jsonl")
    first, second = map(json.loads, (folder / "t.jsonl.rejects.jsonl").read_text().splitlines())
    assert first["metadata"] == {"n": int(number)}
    assert second["text"] == '{"userId": }'


async def test_a_check_says_what_an_import_would_and_changes_nothing(command, write, graph, everything):
    await graph.save("u1", "STRIPE", "cus_1")
    await graph.save("u7", "STRIPE", "cus_7")
    new_and_stored = *many(3)[2:], token("u7", customer="cus_7")
    file = write(
        "t.jsonl", token("u1", customer="cus_1", description="d"), *new_and_stored, token("u9", customer="cus_1")
    )
    before = await everything()
    checked = await command("import", file, "--check")
    assert await everything() == before
    done = await command("import", file)
    said = {
        "check of import t.jsonl: would create 1, change 1, leave 1 unchanged, reject 1": checked.err,
        "import t.jsonl: 1 created, 1 changed, 1 unchanged, 1 rejected": done.err,
    }
    assert [*said.values()] == [f"{line}; reasons are in t.jsonl.rejects.jsonl\n" for line in said]
    assert (checked.status, done.status) == (1, 1)
    assert await everything() != before


@pytest.mark.parametrize(
    "damaged", ["4.24E+15", "4,24242e+15", "1E+12", "'0012", '="0012"', "#N/A", "#REF!", "4E15", "4.2E15", "#####"]
)
async def test_what_a_spreadsheet_destroyed_is_rejected_with_that_reason(command, write, folder, reasons, damaged):
    file = write("t.csv", token(damaged), token("u2", customer=damaged))
    assert "2 rejected" in (await command("import", file)).err
    assert reasons("t.csv.rejects.csv") == [(2, "userId", "INVALID"), (3, "gatewayCustomerId", "INVALID")]
    assert (folder / "t.csv.rejects.csv").read_text().count("A spreadsheet ") == 2


@pytest.mark.parametrize("identifier", ["1E5", "12e45", "0012", "-", "+1", "a'b", "=x"])
async def test_what_only_looks_a_little_like_it_is_an_identifier(command, write, identifier):
    assert "1 created" in (await command("import", write("t.csv", token(identifier, customer=identifier)))).err


async def test_numbers_in_json_are_identifiers_digit_by_digit(command, folder, table, reasons):
    big = 123456789012345678901234567890
    (folder / "t.jsonl").write_text(
        f'{{"userId": {big}, "gateway": "A", "gatewayCustomerId": 9007199254740993}}\n'
        '{"userId": 4.24e15, "gateway": "A", "gatewayCustomerId": "c"}\n'
        '{"userId": "u", "gateway": "A", "gatewayCustomerId": 1.0}\n'
        '{"userId": true, "gateway": "A", "gatewayCustomerId": "d"}\n'
        '{"userId": "u", "gateway": "A", "gatewayCustomerId": 4111111111111111}\n'
    )
    await command("import", "t.jsonl")
    assert await table("select user_id, gateway_customer_id from customer_gateway_tokens") == [
        (str(big), "9007199254740993")
    ]
    assert [(line, code) for line, _, code in reasons("t.jsonl.rejects.jsonl")] == [
        (2, "INVALID"),
        (3, "INVALID"),
        (4, "INVALID"),
        (5, "CARD_NUMBER"),
    ]


@pytest.mark.parametrize("user", [" u", "u ", "undefined", "null", "NaN", "[object Object]", "u\u200b"])
async def test_what_a_program_writes_by_mistake_is_no_user(command, write, reasons, user):
    await command("import", write("t.csv", token(user)))
    assert reasons("t.csv.rejects.csv") == [(2, "userId", "INVALID")]


async def test_what_was_recognized_is_said(command, folder):
    text = "User ID;Customer ID\r\nu1;cus_1\r\n"
    (folder / "t.csv").write_bytes(text.encode("utf-16"))
    outcome = await command("import", "t.csv", "--gateway", "stripe")
    assert outcome.err == (
        "import t.csv: reads UTF-16, semicolons, 'User ID' → userId, 'Customer ID' → gatewayCustomerId\n"
        "import t.csv: 1 created\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--delimiter", "x"], "--delimiter must be one of"),
        (["--column", "userId"], "--column must be FIELD=COLUMN"),
        (["--column", "user=userId"], "--column must be FIELD=COLUMN, where FIELD is one of id, userId"),
        (["--encoding", "klingon"], "--encoding klingon is unknown"),
        (["--gateway", "?"], "'?' is not a valid gateway name"),
        (["--rejects", "why.jsonl"], "need a name that ends in .csv"),
    ],
)
async def test_an_option_that_cannot_be_understood_is_a_wrong_call(command, write, table, arguments, says):
    outcome = await command("import", write("t.csv", token()), *arguments)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert says in outcome.err
    assert await table("select * from customer_gateway_tokens") == []


async def test_a_file_that_is_cut_says_how_far_it_went(command, folder):
    text = json.dumps([token(f"u{n}", customer=f"cus_{n}") for n in range(5_000)])
    (folder / "t.json").write_text(text[:-2000])
    outcome = await command("import", "t.json")
    assert outcome.status == 2
    _, stopped, error = outcome.err.splitlines()
    found = re.fullmatch(r"import t\.json stopped after line (\S+) \((\S+) created\)", stopped)
    line, created = (int(number.replace(",", "")) for number in found.groups())
    assert line == created > 1_000
    assert error.startswith("gateway-tokens: The file is incomplete")


async def test_a_file_that_is_cut_before_anything_was_saved_says_that_nothing_was_changed(command, folder):
    (folder / "t.json").write_text(json.dumps([token(), token("u2", customer="cus_2")])[:-20])
    outcome = await command("import", "t.json")
    assert (outcome.status, outcome.err.splitlines()[1]) == (2, "import t.json stopped: nothing was changed")


async def test_a_damaged_archive_changes_nothing_and_to_run_it_again_is_no_advice(command, folder, table):
    lines = "".join(f"u-{number},STRIPE,cus_{number:08d}\n" for number in range(30_000))
    archive = bytearray(gzip.compress(f"userId,gateway,gatewayCustomerId\n{lines}".encode(), 1, mtime=0))
    archive[23_296] ^= 1
    (folder / "t.csv.gz").write_bytes(archive)
    outcome = await command("import", "t.csv.gz")
    assert (outcome.status, await table(COUNT)) == (2, [(0,)])
    assert "cut off or damaged" in outcome.err
    assert "again to continue" not in outcome.err


@pytest.mark.parametrize("content", [FILE, gzip.compress(FILE)], ids=["plain", "gzip"])
@pytest.mark.parametrize("arguments", [[], ["--rejects", "why.csv"]])
async def test_a_named_pipe_is_read_to_its_end(command, folder, reasons, table, content, arguments):
    os.mkfifo("pipe.csv")
    writer = threading.Thread(target=(folder / "pipe.csv").write_bytes, args=(content,))
    writer.start()
    outcome = await command("import", "pipe.csv", *arguments)
    writer.join()
    rejected = arguments[-1] if arguments else "stdin.rejects.csv"
    assert outcome.err == f"import pipe.csv: 1 created, 1 rejected; reasons are in {rejected}\n"
    assert reasons(rejected) == [(3, "gateway", "INVALID")]


@pytest.mark.parametrize("device", ["/dev/stdin", "/dev/fd/0"])
async def test_standard_input_may_be_named_as_a_device(process, folder, device):
    (folder / "t.csv").write_bytes(FILE)
    with (folder / "t.csv").open("rb") as stdin:
        running = await process("import", device, stdin=stdin)
        _, err = await running.communicate()
    assert f"import {device}: 1 created, 1 rejected; reasons are in stdin.rejects.csv\n" in err.decode()


@pytest.mark.parametrize("name", ["t.csv", "./t.csv", "link.csv", "hard.csv"])
async def test_rejects_never_overwrite_the_file_that_is_read(command, folder, table, name):
    path = folder / "t.csv"
    path.write_bytes(FILE)
    (folder / "link.csv").symlink_to(path)
    (folder / "hard.csv").hardlink_to(path)
    outcome = await command("import", "t.csv", "--rejects", name)
    assert (outcome.status, await table(COUNT)) == (2, [(0,)])
    assert f"--rejects {Path(name)} would overwrite t.csv" in outcome.err
    assert path.read_bytes() == FILE


async def test_a_file_that_cannot_be_read_is_not_called_the_database(command):
    outcome = await command("import", "/proc/self/mem", "--format", "csv")
    assert (outcome.status, outcome.err) == (1, "gateway-tokens: /proc/self/mem: Input/output error\n")


@pytest.mark.parametrize("others", [[], [token("u9", "STRIPE", "cus_9")]], ids=["all are new", "one is there"])
async def test_what_was_reported_of_a_customer_counts_once_it_is_imported(command, write, graph, table, others):
    for each in others:
        await graph.saved(each["userId"], each["gateway"], each["gatewayCustomerId"])
    at = "2026-01-02T03:04:05.000000+00:00"
    await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at)
    await graph.verify("STRIPE", "cus_2", at=at)
    await graph.deactivate_customer("STRIPE", "cus_3", occurredAt=at)
    rows = [*others, token(), token("u2", "STRIPE", "cus_2"), token("u3", "STRIPE", "cus_3", isActive=False)]
    assert (await command("import", write("t.jsonl", *rows))).status == 0
    gone, verified, off = [await graph.customer("STRIPE", f"cus_{number}") for number in (1, 2, 3)]
    assert (gone["deactivationReason"], gone["deactivatedAt"]) == ("GATEWAY_DELETED", at)
    assert (verified["isActive"], verified["lastVerifiedAt"]) == (True, at)
    assert off["deactivationReason"] == "OTHER"
    assert await table("select gateway_customer_id from gateway_customer_reports") == [("cus_3",)]


async def test_a_deletion_from_before_the_import_counts(command, write, graph):
    assert (await command("import", write("t.jsonl", token()))).status == 0
    await graph.deactivate_customer("STRIPE", "cus_1", occurredAt="2026-01-02T03:04:05Z")
    assert (await graph.customer("STRIPE", "cus_1"))["deactivationReason"] == "GATEWAY_DELETED"


async def test_what_a_file_says_of_a_customer_is_settled_by_its_latest_word(command, write, graph):
    past = {"isActive": False, "deactivationReason": "GATEWAY_DELETED", "deactivatedAt": "2026-01-02T00:00:00Z"}
    rows = [
        token(**past, lastVerifiedAt="2026-01-03T00:00:00Z"),
        token("u2", "STRIPE", "cus_2", **past, lastVerifiedAt="2026-01-01T00:00:00Z"),
    ]
    assert (await command("import", write("t.jsonl", *rows))).status == 0
    assert [(await graph.customer("STRIPE", f"cus_{number}"))["isActive"] for number in (1, 2)] == [True, False]


async def test_what_a_file_says_of_a_customer_counts_for_a_token_that_is_there(command, write, graph):
    gone = {"isActive": False, "deactivationReason": "GATEWAY_DELETED"}
    rows = [
        token(**gone, deactivatedAt="2026-01-02T00:00:00Z", lastVerifiedAt="2026-01-01T00:00:00Z"),
        token("u2", "STRIPE", "cus_2", lastVerifiedAt="2026-01-01T00:00:00Z"),
        token(
            "u3", "STRIPE", "cus_3", isActive=False, deactivationReason="FRAUD", deactivatedAt="2026-01-02T00:00:00Z"
        ),
        token("u4", "STRIPE", "cus_4", **gone),
    ]
    await command("import", write("before.csv", *(token(f"u{n}", "STRIPE", f"cus_{n}") for n in range(1, 5))))
    file = write("t.jsonl", *rows)
    assert (await command("import", file)).err == "import t.jsonl: 3 changed, 1 unchanged\n"
    stored = [await graph.customer("STRIPE", f"cus_{number}") for number in range(1, 5)]
    second, first = "2026-01-02T00:00:00.000000+00:00", "2026-01-01T00:00:00.000000+00:00"
    names = ("deactivationReason", "deactivatedAt", "lastVerifiedAt", "version")
    assert [tuple(each[name] for name in names) for each in stored] == [
        ("GATEWAY_DELETED", second, first, 2),
        (None, None, first, 1),
        ("FRAUD", second, None, 2),
        ("GATEWAY_DELETED", stored[3]["deactivatedAt"], None, 2),
    ]
    assert ((await graph.history(stored[0]))[0]["action"], (await graph.history(stored[0]))[0]["reason"]) == (
        "IMPORTED",
        "GATEWAY_DELETED",
    )
    assert (await command("import", file)).err == "import t.jsonl: 4 unchanged\n"
    assert [await graph.customer("STRIPE", f"cus_{number}") for number in range(1, 5)] == stored


@pytest.mark.parametrize("order", [1, -1])
async def test_of_two_deletions_in_a_file_the_latest_counts_beside_our_own_reason(command, write, graph, order):
    stored = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.deactivate(stored, reason="FRAUD")
    gone = {"isActive": False, "deactivationReason": "GATEWAY_DELETED"}
    days = ("2026-01-03T00:00:00.000000+00:00", "2026-01-02T00:00:00.000000+00:00")[::order]
    assert (await command("import", write("t.jsonl", *(token(**gone, deactivatedAt=day) for day in days)))).status == 0
    assert (await graph.customer("STRIPE", "cus_1"))["deactivationReason"] == "FRAUD"
    await graph.delete(stored)
    assert (await graph.saved("u1", "STRIPE", "cus_1"))["deactivatedAt"] == max(days)


async def test_an_export_that_is_imported_again_revives_nothing(command, graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    await graph.saved("u2", "STRIPE", "cus_2")
    await command("export", "e.csv")
    await graph.deactivate_customer("STRIPE", "cus_1", reason="GATEWAY_DELETED")
    await graph.deactivate_customer("STRIPE", "cus_2", reason="FRAUD")
    assert (await command("import", "e.csv")).err == "import e.csv: 2 unchanged\n"
    for customer, reason in (("cus_1", "GATEWAY_DELETED"), ("cus_2", "FRAUD")):
        assert (await graph.customer("STRIPE", customer))["deactivationReason"] == reason


@pytest.mark.parametrize("name", ["createdAt", "updatedAt", "activatedAt", "lastVerifiedAt", "deactivatedAt"])
async def test_a_time_of_the_future_is_refused(command, write, reasons, name):
    rest = {"isActive": False} if name == "deactivatedAt" else {}
    file = write("t.jsonl", token(**rest, **{name: "2099-01-01T00:00:00Z"}))
    assert (await command("import", file)).status == 1
    assert (name, "INVALID") in {(reason[1], reason[2]) for reason in reasons("t.jsonl.rejects.jsonl")}
    assert f"{name} is in the future: correct it." in Path("t.jsonl.rejects.jsonl").read_text()  # noqa: ASYNC240


async def test_rejected_lines_leave_nothing_in_memory(empty_database):
    async def work():
        async with ConnectionPool.open(empty_database, size=2) as pool:
            lines = ((number, token(f"u{number}", customer="bad id")) for number in range(1, 3000))
            rejected = 0
            async for report in import_tokens(TokenStore(pool), Gateways(), lines):
                rejected += len(report.rejected)
            return rejected

    gc.collect()
    gc.disable()
    try:
        before = {id(each) for each in gc.get_objects() if isinstance(each, InputError)}
        assert await work() == 2999
        assert not [each for each in gc.get_objects() if isinstance(each, InputError) and id(each) not in before]
    finally:
        gc.enable()


async def test_a_customer_that_is_stored_is_taken_although_its_form_is_asked_for_by_now(
    command, write, reasons, table, monkeypatch
):
    old, new = token("u1", "STRIPE", "old_1"), token("u2", "STRIPE", "old_2")
    await command("import", write("t.csv", old))
    monkeypatch.setenv("CUSTOMER_IDS", "STRIPE:cus_*")
    outcome = await command("import", write("t.jsonl", old, {**old, "description": "kept"}, new))
    assert outcome.err.startswith("import t.jsonl: 1 changed, 1 unchanged, 1 rejected")
    assert reasons("t.jsonl.rejects.jsonl") == [(3, "gatewayCustomerId", "INVALID")]
    assert await table("select gateway_customer_id, description from customer_gateway_tokens") == [("old_1", "kept")]


async def test_a_number_with_a_fraction_is_no_identifier_and_stays_what_it_is(command, folder, reasons, table):
    line = '{"userId": 12345678901234567.5, "gateway": "STRIPE", "gatewayCustomerId": 12345678901234567}'
    (folder / "t.jsonl").write_text(line)
    outcome = await command("import", "t.jsonl")
    assert outcome.status == 1
    assert await table(COUNT) == [(0,)]
    assert (
        "userId is required and must be a string or an integer, not " in (folder / "t.jsonl.rejects.jsonl").read_text()
    )


@pytest.mark.parametrize("arguments", [["import"], ["remap", "--gateway", "STRIPE"], ["export"]])
async def test_no_message_names_a_card_number_of_a_files_name(command, folder, graph, arguments):
    await graph.save("u1", "STRIPE", "cus_1")
    name = f"{CARD.replace(' ', '')}.csv"
    (folder / name).write_text("userId,gateway,gatewayCustomerId,old,new\n?,?,?,?,?\n")
    outcome = await command(arguments[0], name, *arguments[1:])
    assert outcome.err
    assert "4111" not in outcome.out + outcome.err
    missing = await command(arguments[0], f"{CARD}/none.csv", *arguments[1:])
    assert missing.status
    assert "4111" not in missing.out + missing.err


@pytest.mark.parametrize("reason", ["GATEWAY_DELETED", "FRAUD"])
async def test_an_older_export_never_activates_a_token_whose_deactivation_was_reported_late(
    command, folder, graph, reason
):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    token = token_of(await graph.update(token, description="later"))
    assert (await command("export", "old.jsonl")).status == 0
    when = token["createdAt"] if reason == "FRAUD" else "2026-01-01T00:00:00Z"
    await graph.deactivate_customer("STRIPE", "cus_1", reason=reason, occurredAt=when)
    before = await graph.token(token["id"])
    assert before["isActive"] is False
    assert (await command("import", "old.jsonl")).err == "import old.jsonl: 1 unchanged\n"
    assert await graph.token(token["id"]) == before


async def test_an_older_export_does_not_undo_an_activation_and_a_newer_decision_counts(command, folder, graph, write):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.deactivate(token, reason="FRAUD")
    assert (await command("export", "old.jsonl")).status == 0
    active = token_of(await graph.activate(token))
    assert (await command("import", "old.jsonl")).err == "import old.jsonl: 1 unchanged\n"
    assert await graph.token(token["id"]) == active
    decision = {"userId": "u1", "gateway": "STRIPE", "gatewayCustomerId": "cus_1", "isActive": False}
    assert (await command("import", write("new.jsonl", decision))).err == "import new.jsonl: 1 changed\n"
    assert (await graph.token(token["id"]))["isActive"] is False


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
async def test_long_numbers_in_metadata_come_back_as_they_were(command, folder, graph, empty, suffix):
    metadata = {"a": 1e20, "b": [1.5e30, {"c": -1e19}], "d": 2**64 - 1, "e": 1e100}
    token = await graph.saved("u1", "STRIPE", "cus_1", metadata=metadata)
    assert (await command("export", f"all.{suffix}")).status == 0
    await empty()
    assert (await command("import", f"all.{suffix}")).err == f"import all.{suffix}: 1 created\n"
    assert (await graph.token(token["id"]))["metadata"] == metadata
