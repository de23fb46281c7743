"""`gateway-tokens export`: what it writes, `import` stores again as it was."""

import csv
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphql_api.bulk.files.columns import TOKENS
from graphql_api.bulk.files.csv_lines import read_csv
from graphql_api.bulk.files.opening import ReadOptions, reading
from tests.bulk.records import token

TEXTS = [
    "",
    " ",
    '"',
    '""',
    ",",
    "\\",
    "\\.",
    "\\N",
    "a\nb",
    "a\r\nb\r",
    "\x01\x02",
    "ü 🎉 \u2028",
    "null",
    "a\tb",
    "'",
]


async def store_odd_tokens(graph):
    """Tokens with all that may be hard to write down: odd texts, former identifiers and every state."""
    inputs = [
        token(f"u{number}", "STRIPE", f"cus_{number}", description=text, metadata={text: [text, 1.5, None, {}]})
        for number, text in enumerate(TEXTS)
    ]
    assert (await graph.save_many([*inputs, token('u,"', "A", '"c,'), token("u", "A", "c")]))["userErrors"] == []
    former = await graph.saved("u0", "STRIPE", "z", replaces="cus_0")
    await graph.save("u0", "STRIPE", "a", replaces="z")
    await graph.deactivate(former, reason="FRAUD")
    await graph.verify("STRIPE", "cus_1", at="2026-01-02T03:04:05.678901Z")
    await graph.deactivate_customer("STRIPE", "cus_2")
    await graph.activate(await graph.customer("STRIPE", "cus_2"))


def without_database(said):
    """The lines of standard error but those that name the database."""
    return [line for line in said.splitlines() if not line.startswith("Database: ")]


@pytest.fixture
def rows(table):
    """Every column of every token, and whose identifiers are which, oldest first."""

    async def dump():
        return (
            await table("select * from customer_gateway_tokens order by id"),
            await table(
                "select user_id, gateway, array_agg(gateway_customer_id order by since, gateway_customer_id)"
                " from gateway_customers where user_id <> 'u0' group by 1, 2 order by 1, 2"
            ),
        )

    return dump


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
async def test_what_is_exported_and_imported_into_an_empty_database_is_the_same(command, graph, rows, empty, ending):
    await store_odd_tokens(graph)
    before = await rows()
    assert (await command("export", f"all.{ending}")).status == 0
    await empty()
    outcome = await command("import", f"all.{ending}")
    assert (outcome.status, outcome.err) == (0, f"import all.{ending}: {len(before[0])} created\n")
    assert await rows() == before
    assert (await graph.customer("STRIPE", "cus_0"))["formerGatewayCustomerIds"] == ["cus_0", "z"]


async def test_a_second_export_has_the_same_bytes(command, graph, folder, empty):
    await store_odd_tokens(graph)
    await command("export", "one.jsonl")
    await empty()
    await command("import", "one.jsonl")
    await command("export", "two.jsonl")
    assert (folder / "one.jsonl").read_bytes() == (folder / "two.jsonl").read_bytes()


async def test_an_export_is_read_in_any_encoding_delimiter_and_quoting(command, graph, folder):
    await store_odd_tokens(graph)
    await command("export", "all.csv")
    exported = rows_of(folder / "all.csv")
    assert len(exported) == len(TEXTS) + 2

    @settings(max_examples=100, deadline=None)
    @given(
        encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030"]),
        delimiter=st.sampled_from(",;\t|"),
        quotes_all=st.booleans(),
        line_end=st.sampled_from(["\n", "\r\n"]),
        says_delimiter=st.booleans(),
    )
    def is_read(encoding, delimiter, quotes_all, line_end, says_delimiter):
        def quoted(cell):
            if cell is None:
                return ""
            is_plain = cell and not quotes_all and not any(mark in cell for mark in f'{delimiter}"\r\n')
            return cell if is_plain else '"' + cell.replace('"', '""') + '"'

        lines = [delimiter.join(map(quoted, cells)) for cells in (exported[0], *map(dict.values, exported))]
        text = "".join(line + line_end for line in [*([f"sep={delimiter}"] if says_delimiter else []), *lines])
        (folder / "other.csv").write_bytes(text.encode(encoding))
        assert rows_of(folder / "other.csv", None if encoding.startswith("utf") else encoding) == exported

    is_read()


def rows_of(path, encoding=None):
    """The cells of each row by the column's name; None for an empty cell, which is not the empty text."""
    with reading(path, ReadOptions(encoding=encoding)) as source:
        return [dict(record) for _, record in read_csv(source, TOKENS)]


async def test_a_file_has_the_names_and_values_of_the_contract(command, graph, folder):
    await graph.save("u1", "STRIPE", "cus_0", description="d", metadata={"a": 1})
    stored = await graph.saved("u1", "STRIPE", "cus_1", replaces="cus_0")
    await command("export", "all.jsonl")
    await command("export", "all.csv")
    record = json.loads((folder / "all.jsonl").read_text())
    assert record == stored | {"activatedAt": stored["createdAt"]}
    with (folder / "all.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert list(row) == list(record)
    assert row == {name: cell(value) for name, value in record.items()}


def cell(value):
    match value:
        case None:
            return ""
        case str():
            return value
        case _:
            return json.dumps(value)


async def test_a_pipe_takes_tokens_from_one_command_to_the_next(folder, graph, new_database, migrated_database):
    await store_odd_tokens(graph)
    other = await new_database(migrated_database)
    command = f"{shlex.quote(sys.executable)} -m graphql_api"
    pipe = f"{command} export - --format csv | DATABASE_URL='{other}' {command} import - --format csv"
    done = subprocess.run(["/bin/sh", "-c", pipe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert "export -: 17 tokens" in done.stderr
    assert "import -: 17 created" in done.stderr


async def test_an_export_that_cannot_be_written_leaves_the_file_of_before(command, graph, folder):
    await graph.save("u1", "STRIPE", "cus_1")
    outcome = await command("export", "nowhere/all.csv")
    assert (outcome.status, outcome.err) == (
        2,
        "gateway-tokens: nowhere/all.csv cannot be opened: No such file or directory\n",
    )
    await command("export", "all.csv")
    assert [path.name for path in folder.iterdir()] == ["all.csv"]


async def test_a_device_is_written_to_and_a_planted_link_is_replaced(command, graph, folder):
    await graph.save("u1", "STRIPE", "cus_1")
    os.mkfifo(folder / "pipe.csv")
    (folder / "link.csv").symlink_to("target.csv")
    with ThreadPoolExecutor() as threads:
        read = threads.submit((folder / "pipe.csv").read_text)
        assert (await command("export", "pipe.csv")).err == "export pipe.csv: 1 tokens\n"
        assert "cus_1" in read.result()
    assert (await command("export", "link.csv")).status == 0
    assert (folder / "pipe.csv").is_fifo()
    assert not (folder / "link.csv").is_symlink()
    assert "cus_1" in (folder / "link.csv").read_text()
    assert not (folder / "target.csv").exists()


async def test_a_report_that_cannot_be_written_is_not_taken_for_the_database(command, write, folder):
    file = write("t.csv", token())
    outcome = await command("import", file, "--rejects", "nowhere/r.csv")
    assert outcome.status == 1
    assert outcome.err == (
        "gateway-tokens: nowhere/r.csv: the rejected lines cannot be written there (No such file or directory): name"
        " a file with --rejects, in a directory"
        " that you can write to\n"
    )


async def test_a_full_disk_is_not_taken_for_the_database(folder, graph):
    await graph.save("u1", "STRIPE", "cus_1")
    command = f"{sys.executable} -m graphql_api export - --format csv > /dev/full"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, without_database(done.stderr)) == (1, ["gateway-tokens: No space left on device"])


async def test_a_reader_that_goes_away_is_no_error_worth_a_word(command, folder):
    await command("demo", "--users", "1000")
    pipe = f"{sys.executable} -m graphql_api export - --format csv | head -1"
    done = subprocess.run(["/bin/sh", "-c", pipe], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("id,userId,")
    assert without_database(done.stderr) == []


async def test_demo_tokens_keep_the_rules_of_tokens(command, table, empty):
    async def rows():
        return (
            await table("select * from customer_gateway_tokens order by id"),
            await table("select gateway_customer_id, gateway, user_id from gateway_customers order by 1, 2"),
        )

    await command("demo", "--users", "300")
    before = await rows()
    await command("export", "demo.csv")
    await empty()
    assert (await command("import", "demo.csv")).status == 0
    assert await rows() == before


async def test_an_export_for_spreadsheets_escapes_formulas_and_says_so(command, graph, folder):
    texts = ["=HYPERLINK(1)", "+1", "-1", "@x", "\t=1", "a=1", "", None]
    for number, text in enumerate(texts):
        await graph.save(f"u{number}", "STRIPE", f"cus_{number}", description=text)
    await graph.save("=u", "STRIPE", "-c")
    outcome = await command("export", "all.csv", "--for-spreadsheets")
    assert outcome.err == "export all.csv: 9 tokens; formulas are escaped, so do not import this file\n"
    assert (folder / "all.csv").read_bytes().startswith(b"\xef\xbb\xbfid,")
    with (folder / "all.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["description"] for row in rows[:-1]] == [
        "'=HYPERLINK(1)", "'+1", "'-1", "'@x", "'\t=1", "a=1", "", ""
    ]  # fmt: skip
    assert (rows[-1]["userId"], rows[-1]["gatewayCustomerId"]) == ("'=u", "'-c")
    refused = await command("export", "all.jsonl", "--for-spreadsheets")
    assert (refused.status, refused.err) == (2, "gateway-tokens: --for-spreadsheets needs a CSV file.\n")


@pytest.mark.parametrize("ending", ["csv.gz", "jsonl.zst"])
async def test_a_compressed_export_is_imported_again(command, graph, empty, everything, ending):
    await store_odd_tokens(graph)
    before = await everything()
    await command("export", f"all.{ending}")
    await empty()
    assert (await command("import", f"all.{ending}")).status == 0
    assert [row[:3] for row in (await everything())[0]] == [row[:3] for row in before[0]]


async def test_an_export_is_not_named_for_tabs_that_it_does_not_have(command, folder):
    outcome = await command("export", "all.tsv")
    assert (outcome.status, outcome.err) == (
        2,
        "gateway-tokens: An export has commas, no tabs: name all.tsv with .csv instead of .tsv.\n",
    )
    assert list(folder.iterdir()) == []
