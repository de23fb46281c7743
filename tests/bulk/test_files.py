"""Files as people have them: any encoding, delimiter, line end, header and JSON is read rightly, or is a question."""

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import re
import stat
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphql_api.bulk.files.json_records import _object, _Splitter
from graphql_api.bulk.files.opening import ReadOptions, reading, writing
from graphql_api.bulk.files.record_files import read_customers, read_id_changes, read_tokens
from graphql_api.bulk.records import Unreadable
from graphql_api.domain.errors import BadInputError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SAMPLES = Path(__file__).with_name("samples")
HEADER = ["userId", "gateway", "gatewayCustomerId", "description"]
ROWS = [
    ["u1", "STRIPE", "cus_1", "Jürgen Groß, Köln; Straße"],
    ["u2", "STRIPE", "cus_2", 'says "hi"\tand more'],
    ["u3", "STRIPE", "cus_3", None],
]
RECORDS = [dict(zip(HEADER, row, strict=True)) for row in ROWS]


def read(path, reader=read_tokens, **options):
    """The records of a file, and what was recognized of it."""
    with reading(path, ReadOptions(**options)) as source:
        lines = list(reader(source))
    problems = [record.problem.message for _, record in lines if isinstance(record, Unreadable)]
    assert problems == []
    return [dict(record) for _, record in lines], source.recognized


def written(rows, *, delimiter=",", quoting=csv.QUOTE_MINIMAL, lineterminator="\r\n", header=HEADER):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=lineterminator)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


# --- text

# Python 3.11 does not quote a carriage return.
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)
IDENTIFIER = st.text(st.sampled_from("abcXYZ0189_-.,;|ü'\""), min_size=1, max_size=8)
ROW = st.tuples(IDENTIFIER, st.just("STRIPE"), IDENTIFIER, CELL)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(ROW, max_size=4),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    lineterminator=st.sampled_from(["\n", "\r\n"]),
    says_delimiter=st.booleans(),
)
def test_what_is_written_in_any_encoding_delimiter_and_quoting_is_read(
    tmp_path_factory, rows, encoding, delimiter, quoting, lineterminator, says_delimiter
):
    text = written(rows, delimiter=delimiter, quoting=quoting, lineterminator=lineterminator)
    if says_delimiter:
        text = f"sep={delimiter}{lineterminator}{text}"
    path = tmp_path_factory.mktemp("files") / "t.csv"
    path.write_bytes(text.encode(encoding))
    records, recognized = read(path)
    # Python writes nothing and the empty text alike, but quotes both with QUOTE_ALL.
    empty = "" if quoting == csv.QUOTE_ALL else None
    expected = [dict(zip(HEADER, (*row[:3], row[3] or empty), strict=True)) for row in rows]
    assert records == expected
    assert ("UTF-16" in recognized) == ("16" in encoding)
    names = {",": None, ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
    assert names[delimiter] is None or names[delimiter] in recognized


def test_lines_may_end_in_cr_alone(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(written(ROWS, lineterminator="\r").encode())
    records, recognized = read(path)
    assert records == RECORDS
    assert recognized == ["lines that end in CR"]


@given(ends=st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=1, max_size=8), is_ended=st.booleans())
def test_lines_of_joined_files_may_end_in_different_ways(tmp_path_factory, ends, is_ended):
    lines = [f"u{n},STRIPE,cus_{n},{n}{end if is_ended or n < len(ends) - 1 else ''}" for n, end in enumerate(ends)]
    path = tmp_path_factory.mktemp("files") / "t.csv"
    path.write_bytes(("userId,gateway,gatewayCustomerId,description\n" + "".join(lines)).encode())
    assert [record["description"] for record in read(path)[0]] == [str(n) for n in range(len(ends))]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_header_of_a_file_that_was_joined_to_another_is_no_record(tmp_path, mark):
    path = tmp_path / "t.csv"
    path.write_text(written(ROWS) + mark + written(ROWS[:1]), encoding="utf-8", newline="")
    assert read(path)[0] == [*RECORDS, RECORDS[0]]


@pytest.mark.parametrize("ends", [*itertools.product(["\r", "\n", "\r\n"], repeat=3)], ids=repr)
def test_lines_of_json_may_end_in_different_ways(tmp_path, ends):
    path = tmp_path / "t.jsonl"
    path.write_bytes(
        b"".join(json.dumps(record).encode() + end.encode() for record, end in zip(RECORDS, ends, strict=True))
    )
    assert read(path)[0] == RECORDS


def test_a_carriage_return_in_quotes_is_kept_beside_other_ends(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'userId,gateway,gatewayCustomerId,description\nu1,A,c1,"a\rb"\nu2,A,c2,x\ru3,A,c3,"c\rd"\n')
    assert [record["description"] for record in read(path)[0]] == ["a\rb", "x", "c\rd"]


def test_another_encoding_is_a_question_and_its_answer_is_taken(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(written(ROWS).encode("windows-1252"))
    with pytest.raises(BadInputError, match=r"is not UTF-8 \(line 2 has the byte 0xFC\).*--encoding windows-1252"):
        read(path)
    assert read(path, encoding="windows-1252") == (RECORDS, ["windows-1252"])
    with pytest.raises(BadInputError, match="--encoding klingon is unknown"):
        read(path, encoding="klingon")


@pytest.mark.parametrize(
    "encoding", ["base64", "rot13", "zlib", "hex", "idna", "punycode", "undefined", "bz2", "utf-16", "utf-32", "a\0b"]
)
def test_an_encoding_that_no_file_can_have_is_named(tmp_path, encoding):
    path = tmp_path / "t.csv"
    path.write_text(written(ROWS))
    with pytest.raises(BadInputError, match=r"is unknown|has no byte order mark"):
        read(path, encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_byte_order_mark_takes_precedence(tmp_path, encoding):
    path = tmp_path / "t.csv"
    path.write_text(written(ROWS), encoding=encoding)
    assert read(path, encoding=encoding)[0] == read(path, encoding="windows-1252")[0] == RECORDS


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_characters_are_known_without_a_mark(tmp_path, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes(written(ROWS).encode(encoding))
    assert read(path)[0] == RECORDS


def test_a_line_that_cannot_be_decoded_far_down_is_refused_alone(tmp_path):
    path = tmp_path / "t.csv"
    rows = [[f"u{n}", "STRIPE", f"cus_{n}", "x" * 100] for n in range(2000)]
    path.write_bytes(written(rows).encode().replace(b"u1500,STRIPE,cus_1500,x", b"u1500,STRIPE,cus_1500,\xfc"))
    with reading(path, ReadOptions()) as source:
        lines = list(read_tokens(source))
    refused = [(number, record) for number, record in lines if isinstance(record, Unreadable)]
    assert [number for number, _ in refused] == [1502]
    assert "--encoding" in refused[0][1].problem.message
    assert len(lines) == len(rows)


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv.zst", "t.csv", "t"])
def test_compressed_files_are_known_by_their_content(tmp_path, compress, name):
    path = tmp_path / name
    path.write_bytes(compress(written(ROWS).encode()))
    assert read(path)[0] == RECORDS


DAMAGED = {
    "cut.gz": lambda text: gzip.compress(text, 1)[:-100],
    "cut.zst": lambda text: zstd.compress(text)[:-100],
    "flipped.gz": lambda text: flipped(gzip.compress(text, 1, mtime=0)),
    # Without a checksum of its own, zstd mostly cannot tell.
    "flipped.zst": lambda text: flipped(zstd.compress(text, options={zstd.CompressionParameter.checksum_flag: 1})),
}


def flipped(data):
    """The data with one bit in its middle changed."""
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_compressed_file_that_is_cut_or_damaged_yields_nothing(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(DAMAGED[name](written([[f"u{n}", "STRIPE", f"cus_{n:08d}", ""] for n in range(20_000)]).encode()))
    with (
        pytest.raises(BadInputError, match="cannot be decompressed, it is cut off or damaged"),
        reading(path, ReadOptions(format="csv")),
    ):
        pytest.fail("it was opened")


def zipped(_):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("xl/workbook.xml", "x")
    return archive.getvalue()


@pytest.mark.parametrize(
    ("pack", "says"),
    [
        (zipped, "a spreadsheet or a ZIP archive: save the sheet as CSV UTF-8"),
        (lambda _: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "an Excel workbook: save it as CSV UTF-8"),
        (bz2.compress, "compressed with bzip2: decompress it"),
        (lzma.compress, "compressed with xz: decompress it"),
        (lambda text: gzip.compress(gzip.compress(text)), "compressed twice"),
        (lambda text: b"PAR1" + text, "a Parquet file"),
        (lambda text: gzip.compress(b"<!doctype html>" + text), "an HTML page"),
        (lambda text: zstd.compress(gzip.compress(text)), "compressed twice"),
        (lambda text: gzip.compress(zipped(text)), "a ZIP archive"),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_to_do(tmp_path, pack, says):
    path = tmp_path / "t.csv"
    path.write_bytes(pack(written(ROWS).encode()))
    with pytest.raises(BadInputError, match=says):
        read(path)


def test_frames_of_zstandard_that_are_to_be_skipped_are_skipped(tmp_path):
    path = tmp_path / "t.csv.zst"
    halves = written(ROWS).encode().partition(b"\r\n")
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0size"
    path.write_bytes(b"".join(skipped + zstd.compress(part) for part in halves))
    assert read(path)[0] == RECORDS


# --- headers


@pytest.mark.parametrize(
    "header",
    [
        ["User ID", "Gateway", "Customer ID", "Description"],
        ["userid", "GATEWAY", "gatewaycustomerid", "description"],
        [" user_id ", "gateway", "gateway-customer-id", "description"],
        ["user_id (metadata)", "gateway", "Shopper Reference", "DESCRIPTION"],
        ["User", "payment gateway", "Stripe customer ID", "description"],
    ],
)
def test_headers_are_known_by_their_meaning(tmp_path, header):
    path = tmp_path / "t.csv"
    path.write_text(written(ROWS, header=header))
    records, recognized = read(path)
    assert records == RECORDS
    assert f"{header[0]!r} → userId" in recognized


def test_a_column_may_be_named_and_others_skipped(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Kunde,id,Email\nu1,cus_1,a@b\n")
    with pytest.raises(BadInputError, match="The columns userId and gatewayCustomerId are missing"):
        read(path, gateway="STRIPE")
    columns = {"userId": "Kunde", "gatewayCustomerId": "id"}
    with pytest.raises(BadInputError, match=r"The column 'Email' is none of .* --skip-unknown-columns"):
        read(path, gateway="STRIPE", columns=columns)
    records, _ = read(path, gateway="STRIPE", columns=columns, skip_unknown_columns=True)
    assert records == [{"userId": "u1", "gateway": "STRIPE", "gatewayCustomerId": "cus_1"}]


EXPORTS = {
    "Stripe's dashboard": "id,Description,Email,Name,Created (UTC),Delinquent,Plan,Status,user_id (metadata)",
    "columns chosen there": "id,Created (UTC),userId (metadata)",
    "Stripe's data export": "description,name,email,id,card.address_city,card.id,default_source,user_id (metadata)",
    "Braintree's vault": "id,first_name,last_name,email,credit_card.token,user_id",
    "Braintree's search": "Customer ID,First Name,Email,user id",
    "Adyen's report": "Shopper Reference,user id",
    "Adyen's API": "shopperReference,userId",
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_of_gateways_are_imported_by_their_own_columns(tmp_path, name):
    header = EXPORTS[name].split(",")
    cells = {"id": "cus_1", "customer id": "cus_1", "shopper reference": "cus_1", "shopperreference": "cus_1"}
    row = ["u-1" if "user" in each.lower() else cells.get(each.lower(), "") for each in header]
    path = tmp_path / "t.csv"
    path.write_text(f"{','.join(header)}\n{','.join(row)}\n")
    [record], recognized = read(path, gateway="STRIPE", skip_unknown_columns=name == "Braintree's search")
    record.pop("description", None)
    assert record == {"userId": "u-1", "gateway": "STRIPE", "gatewayCustomerId": "cus_1"}
    if "id" in header:
        assert "'id' → gatewayCustomerId" in recognized
        assert any(said.startswith("ignores ") and "'user" not in said for said in recognized)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("id,userId,Email", "The column gatewayCustomerId is missing"),  # of a table of one's own, perhaps
        ("id,Email,Created (UTC)", "The column userId is missing"),
        ("userId,Customer ID,Stripe Customer ID", "'Customer ID' and 'Stripe Customer ID' may both be"),
    ],
)
def test_what_may_be_a_customers_id_is_a_question(tmp_path, header, says):
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\n1,2,3\n")
    with pytest.raises(BadInputError, match=says):
        read(path, gateway="STRIPE")


@pytest.mark.parametrize("reader", [read_tokens, read_id_changes, read_customers])
def test_no_message_quotes_a_card_number_of_a_file_without_a_header(tmp_path, reader):
    path = tmp_path / "t.csv"
    path.write_text("4111111111111111,4111 1111 1111 1111,x\n")
    with pytest.raises(BadInputError) as error:
        read(path, reader)
    assert "4111" not in str(error.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    "header",
    [
        ["old", "new"],
        ["New", "OLD"],
        ["customer_id_old", "source_id_old", "customer_id_new", "source_id_new"],
        ["old_customer_id", "stripe_customer_id"],
        None,
    ],
)
def test_the_files_of_moved_accounts_are_read_as_they_are(tmp_path, delimiter, header):
    row = {"old": "cus_1", "new": "cus_9", "source": "card_1"}
    cells = [row["source" if "source" in name else "old" if "old" in name.lower() else "new"] for name in header or ()]
    lines = [header, cells] if header else [[row["old"], row["new"]]]
    path = tmp_path / "t.csv"
    path.write_text("".join(delimiter.join(line) + "\n" for line in lines))
    assert read(path, read_id_changes)[0] == [{"old": "cus_1", "new": "cus_9"}]


@pytest.mark.parametrize("rows", ["\n", "\r\n \r\n", ",,,\n;;\n"])
def test_empty_rows_above_the_header_are_none(tmp_path, rows):
    path = tmp_path / "t.csv"
    path.write_bytes((rows + written(ROWS)).encode())
    assert read(path)[0] == RECORDS


def test_two_columns_of_one_name_are_to_be_renamed(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("userId,userId,gateway,gatewayCustomerId\nu1,u2,A,c1\n")
    with pytest.raises(BadInputError, match=r"There are two columns 'userId'\. Rename or remove one"):
        read(path)


@pytest.mark.parametrize("column", ["Deleted At", "Status", "is_deleted"])
def test_a_list_may_say_in_other_ways_that_a_customer_was_deleted(tmp_path, column):
    path = tmp_path / "t.csv"
    gone = {"Deleted At": "2021-01-01", "Status": "Deleted", "is_deleted": "yes"}[column]
    path.write_text(f"id,{column}\ncus_1,{gone}\ncus_2,\n")
    assert [record["deleted"] for record in read(path, read_customers)[0]] == [True, False]


def test_two_delimiters_that_fit_alike_are_a_question(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b;c\n")
    with pytest.raises(BadInputError, match="may be delimited by commas or semicolons"):
        read(path)


def test_rows_of_empty_cells_are_none_and_padding_is_left_out(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("userId,gateway,gatewayCustomerId\n,,\nu1,STRIPE,cus_1,,,\n\n,,,,\n")
    assert read(path)[0] == [{"userId": "u1", "gateway": "STRIPE", "gatewayCustomerId": "cus_1"}]


# --- JSON

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | CELL,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELL, inner, max_size=3),
    max_leaves=8,
)
JSON_RECORD = st.fixed_dictionaries(
    {"userId": IDENTIFIER, "gatewayCustomerId": st.integers() | IDENTIFIER}, optional={"metadata": JSON}
)
SHAPES = {
    "an array": lambda records, indent: json.dumps(records, indent=indent, ensure_ascii=False),
    "a list object": lambda records, indent: json.dumps(
        {"object": "list", "url": "/v1/customers", "has_more": False, "data": records, "more": [{"a": 1}]},
        indent=indent,
    ),
    "objects": lambda records, indent: "\n".join(json.dumps(record, indent=indent) for record in records),
}


@settings(max_examples=300, deadline=None)
@given(
    records=st.lists(JSON_RECORD, max_size=4),
    shape=st.sampled_from(sorted(SHAPES)),
    indent=st.sampled_from([None, 0, 2]),
    encoding=st.sampled_from(["utf-8", "utf-16"]),
)
def test_json_of_any_shape_is_read_with_exact_numbers(tmp_path_factory, records, shape, indent, encoding):
    path = tmp_path_factory.mktemp("files") / "t.json"
    path.write_text(SHAPES[shape](records, indent), encoding=encoding)
    assert read(path)[0] == records


@given(
    text=st.sampled_from(sorted(SHAPES)),
    records=st.lists(JSON_RECORD, max_size=3),
    others=st.lists(JSON, max_size=2),
    cuts=st.lists(st.integers(0, 400)),
)
def test_records_and_other_values_of_an_array_are_found_wherever_the_text_is_cut_into_chunks(
    text, records, others, cuts
):
    records = records if text == "objects" else [*others, *records]
    data = SHAPES[text](records, 1).encode()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[begin:end] for begin, end in itertools.pairwise(places)]
    assert [json.loads(each) for each in _Splitter().split(iter(chunks))] == records


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("before", ["", '"over\ntwo"', '"with ""two"" marks"', '""'])
@pytest.mark.parametrize("after", [0, 1, 20_000])
def test_a_quotation_mark_that_is_not_closed_is_named_with_its_line(tmp_path, quote, before, after):
    rows = [f'"id","x","y"\n"cus_1",{before},', '"open ""and ""\n', "cus_2,b,c\n" * after]
    (path := tmp_path / "t.csv").write_text("".join(rows).replace('"', quote))
    with reading(path, ReadOptions()) as source:
        refused = [(at, each.problem.message) for at, each in read_customers(source) if isinstance(each, Unreadable)]
    line = 3 if "\n" in before else 2
    reason = f"This line is not valid CSV: the quotation mark that opens in line {line} is not closed."
    assert refused[0] == (2, reason)


@pytest.mark.parametrize(
    ("text", "where"), [('cus_1,"a "b" c"\n', "here"), ('cus_1,"a\ncus_2,"b"\n', "in lines 2 to 3")]
)
def test_a_quotation_mark_that_closes_a_cell_too_early_is_named(tmp_path, text, where):
    (path := tmp_path / "t.csv").write_text(f"id,x\n{text}")
    with reading(path, ReadOptions()) as source:
        (_, refused), *_ = read_customers(source)
    assert f"a quotation mark is missing {where}, or one inside a cell is not doubled" in refused.problem.message


@pytest.mark.parametrize(
    ("content", "records", "texts"),
    [
        ('[{"userId": "u1"}, 7, {"userId": "u2"}, ["x"], "y"]', 2, ["7", '["x"]', '"y"']),
        ('[{"userId": "u1"}, {"userId": }, {"userId": "u3"}]', 2, ['{"userId": }']),
        ('{\n"userId": "u1"\n}\n{\n"userId": \n}\nnull', 1, ['{\n"userId": \n}', "null"]),
        ('{"userId": "u1"}\n{"userId": \n{"userId": "u3"}\n', 2, ['{"userId": ']),
        ('{"userId": "u1", "userId": "u2"}\n{"userId": "u3"}\n', 1, ['{"userId": "u1", "userId": "u2"}']),
        ('{"metadata": {"a": [{"b": 1, "b": 1}]}}\n', 0, ['{"metadata": {"a": [{"b": 1, "b": 1}]}}']),
    ],
)
def test_what_is_no_record_is_refused_with_its_text_and_the_rest_is_read(tmp_path, content, records, texts):
    path = tmp_path / "t.json"
    path.write_text(content)
    with reading(path, ReadOptions()) as source:
        lines = [record for _, record in read_tokens(source)]
    refused = [record for record in lines if isinstance(record, Unreadable)]
    assert [each.record["text"] for each in refused] == texts
    assert len(lines) - len(refused) == records


def pairs_of(values):
    key, space = st.sampled_from(["a", "b", ":", '"', "\\", " "]), st.sampled_from(["", " ", "\t "])
    pair = st.tuples(key.map(json.dumps), space, values).map(lambda each: f"{each[0]}{each[1]}:{each[1]}{each[2]}")
    return st.lists(pair, max_size=3).map(lambda pairs: f"{{{','.join(pairs)}}}")


NESTED = st.recursive(
    st.sampled_from(['": \\"', ":", "", 'a":', "\\"]).map(json.dumps) | st.sampled_from(["1", "null"]),
    lambda values: st.lists(values, max_size=2).map(lambda items: f"[{','.join(items)}]") | pairs_of(values),
    max_leaves=4,
)


@given(text=pairs_of(NESTED))
def test_a_key_that_is_there_twice_is_found_wherever_it_is_and_no_other(text):
    def once(pairs):
        if len(dict(pairs)) < len(pairs):
            raise KeyError
        return dict(pairs)

    try:
        record = json.loads(text, object_pairs_hook=once)
    except KeyError:
        with pytest.raises(BadInputError, match="There are two keys"):
            _object(text.encode())
    else:
        assert _object(text.encode()) == record


def pages(flags, **kwargs):
    return "\n".join(
        json.dumps({"object": "list", "data": [{"id": "cus_1"}], "has_more": more}, **kwargs) for more in flags
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('[{"id": "' + "x" * 3_000_000, "the value in line 1, column 2 is longer"),
        ('{"id": "cus_1"}\n{"id": "cus_2", "x": "\u00fc', "is incomplete: it ends inside"),
        ('[{"id": "cus_1"},\n {"id": "cus_2}]', "the quotation mark in line 2, column 9 is not closed"),
        (pages([True]), "one page of a list"),
        (pages([True], indent=2), "one page of a list"),
        (pages([False, True]), "one page of a list"),
        ('{"object": "list", "has_more": true, "data": [{"id": "cus_1"}]}', "one page of a list"),
    ],
)
def test_a_file_that_is_not_all_of_it_is_refused(tmp_path, content, reason):
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(BadInputError, match=reason):
        read(path, read_customers)


@settings(deadline=None)
@given(
    records=st.lists(JSON_RECORD, min_size=1, max_size=3),
    shape=st.sampled_from(["an array", "a list object"]),
    indent=st.sampled_from([None, 0, 2]),
    data=st.data(),
)
def test_a_json_text_that_was_cut_is_refused_wherever_that_was(tmp_path_factory, records, shape, indent, data):
    text = SHAPES[shape](records, indent).encode()
    path = tmp_path_factory.mktemp("files") / "t.json"
    path.write_bytes(text[: data.draw(st.integers(1, len(text) - 1))])
    with pytest.raises(BadInputError, match="is incomplete"):
        read(path)


@given(before=st.integers(0, 5), size=st.sampled_from([1, 40_000]))
def test_a_json_text_that_is_not_cut_but_wrong_says_where(tmp_path_factory, before, size):
    path = tmp_path_factory.mktemp("files") / "t.json"
    record = json.dumps({"userId": "ü" * size}, ensure_ascii=False)
    path.write_text("[" + f"{record},\n" * before + ' {"userId": "ü",]')
    with pytest.raises(BadInputError, match=f"not valid JSON: line {before + 1}, column {17 + (not before)} has ]"):
        read(path)


def test_joined_pages_of_a_list_are_whole_and_so_is_a_record_that_says_has_more(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(pages([True, True, False]))
    assert len(read(path, read_customers)[0]) == 3
    path.write_text('{\n"id": "cus_1",\n"has_more": true\n}\n')
    assert len(read(path, read_customers)[0]) == 1


def test_the_content_tells_a_format_that_the_name_does_not(tmp_path):
    path = tmp_path / "export.txt"
    path.write_text(written(ROWS, delimiter="\t"), encoding="utf-16")
    assert read(path) == (RECORDS, ["UTF-16", "CSV", "tabs"])
    path.write_text(json.dumps(RECORDS))
    assert read(path) == (RECORDS, ["JSON", "a JSON array"])


# --- files that other programs have written


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("tokens.*")), ids=lambda path: path.name)
def test_files_of_other_programs_are_read(path):
    records, _ = read(path, gateway="STRIPE", encoding="windows-1252" if "windows-1252" in path.name else None)
    assert [(record["userId"], record["gatewayCustomerId"]) for record in records] == [
        ("u-1", "cus_NffrFeUfNV2Hib"),
        ("0012", "cus_9s6XKzkNRiz8i3"),
        ("u-3", "cus_4QFOF3xrvBT2nU"),
    ]
    assert records[0]["description"] == "Jürgen Groß, Köln"
    assert records[1]["description"] == 'says "hi"; twice'


PAGE = (Path(__file__).parents[2] / "docs/operations.md").read_text(encoding="utf-8")
EXCEL = written(ROWS, delimiter=";", header=HEADER)
# What the page calls a kind of file: the name and the content of one.
KINDS = {
    'Excel, "CSV UTF-8", in a locale with decimal commas': ("t.csv", EXCEL.encode("utf-8-sig")),
    'Excel, "Unicode Text"': ("t.txt", written(ROWS, delimiter="\t").encode("utf-16")),
    'Excel on Windows, "CSV" with accented letters': ("t.csv", EXCEL.encode("windows-1252")),
    "Excel, a workbook": ("t.xlsx", zipped(b"")),
    "LibreOffice, with apostrophes for quotation marks": (
        "t.csv",
        (SAMPLES / "tokens.libreoffice-apostrophes.csv").read_bytes(),
    ),
    "Stripe's dashboard, customers": ("t.csv", b"id,Description,Email,Name,Delinquent,user_id (metadata)\nc,,,,,u\n"),
    "Braintree's vault, with a column of yours": ("t.csv", b"id,email,credit_card.token,user_id\nc,,t,u\n"),
    "two columns that may be the customer id": ("t.csv", b"userId,Customer ID,Payer ID\nu,c,p\n"),
    "a database, one JSON array": ("t.json", json.dumps(RECORDS).encode()),
    "Stripe's API, one page of several": ("t.json", b'{"object": "list", "data": [{"userId": "u"}], "has_more": true}'),
    "a truncated download": ("t.csv.gz", gzip.compress(EXCEL.encode())[:-9]),
}


def test_the_page_tells_what_is_said_of_each_kind_of_file_and_done(tmp_path):
    [table] = re.findall(r"\| source \| the command reports \|.*\n\| --- .*\n((?:\|.*\n)+)", PAGE)
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()]
    assert [kind for kind, _, _ in rows] == list(KINDS)
    for kind, says, does in rows:
        name, content = KINDS[kind]
        path = tmp_path / name
        path.write_bytes(content)
        if does.startswith("stops"):
            with pytest.raises(BadInputError, match=re.escape(says.strip("`"))):
                read(path, gateway="STRIPE")
        else:
            assert ", ".join(read(path, gateway="STRIPE")[1]) == says.strip("`")


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("customers.*")), ids=lambda path: path.name)
def test_lists_of_gateways_are_read(path):
    records, _ = read(path, read_customers)
    assert [record["id"] for record in records] == ["cus_NffrFeUfNV2Hib", "cus_9s6XKzkNRiz8i3"]


# --- writing


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.csv.zst"])
def test_a_written_file_is_its_owners_alone_and_replaces_a_link(tmp_path, name):
    target, path = tmp_path / "target", tmp_path / name
    target.write_text("as it was")
    path.symlink_to(target)
    with writing(path) as file:
        file.write(written(ROWS).encode())
    assert target.read_text() == "as it was"
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert read(path)[0] == RECORDS
    with suppress(RuntimeError), writing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert read(path)[0] == RECORDS
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(["target", name])
