"""Preparing documents: what is looked at once, what is refused, what is remembered, what is not told."""

import inspect

import pytest
import strawberry
from graphql import GraphQLError, OperationType, ValidationRule
from strawberry.directive import DirectiveLocation
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig

from graphql_api.engine import Engine, Operation
from tests.engine.library import SCHEMA
from tests.engine.oracle import Context
from tests.web.test_cycles import only_found_by_the_collector


def engine(**options):
    return Engine(SCHEMA._schema, **options)


def messages(prepared):
    assert isinstance(prepared, list), prepared
    return [error.message for error in prepared]


class Refusing(ValidationRule):
    """A rule of our own."""

    def enter_field(self, node, *_):
        if node.name.value == "plain":
            self.report_error(GraphQLError("not plain", node))


def test_an_operation_says_what_it_is():
    operation = engine().prepare("mutation Quick { fast { count } }", None)
    assert isinstance(operation, Operation)
    assert (operation.kind, operation.name) == (OperationType.MUTATION, "Quick")
    assert operation.schema is SCHEMA._schema


@pytest.mark.parametrize(
    ("query", "name", "message"),
    [
        (
            "query A { plain } query B { plain }",
            None,
            "Must provide operation name if query contains multiple operations.",
        ),
        ("query A { plain } query B { plain }", "C", "Unknown operation named 'C'."),
        ("{ plain }", "C", "Unknown operation named 'C'."),
        ("{ plain }", "", "Unknown operation named ''."),
        ("{ plain", None, "Syntax Error: Expected Name, found <EOF>."),
        ("", None, "Syntax Error: Unexpected <EOF>."),
        ("{ unheardOf }", None, "Cannot query field 'unheardOf' on type 'Query'."),
        ("fragment F on Query { plain }", None, "Fragment 'F' is never used."),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_reason(query, name, message):
    assert messages(engine().prepare(query, name)) == [message]


def test_too_many_tokens_are_refused_before_anything_else():
    checked = []
    small = engine(max_tokens=5, before_validation=[lambda document: checked.append(document) or []])
    assert messages(small.prepare("{ a b c d e f }", None)) == [
        "Syntax Error: Document contains more than 5 tokens. Parsing aborted."
    ]
    assert not checked


def test_checks_run_before_validation_and_the_first_that_finds_something_ends_it():
    def first(document):
        return [GraphQLError("too much")]

    def second(document):
        raise AssertionError("nobody asks any more")

    assert messages(engine(before_validation=[first, second]).prepare("{ nothingAtAll }", None)) == ["too much"]


def test_checks_of_an_execution_see_its_variables_as_they_were_sent_and_may_refuse_it():
    def checks(schema, document, node):
        assert (schema, node) == (SCHEMA._schema, document.definitions[0])
        return lambda variables: [GraphQLError(f"refused: {variables}")] if variables else []

    operation = engine(before_execution=[checks]).prepare("query ($v: Int) { arguments(number: $v) }")
    assert operation.execute(None, Context()).executed
    result = operation.execute({"v": "x"}, Context())
    assert (result.executed, [error.message for error in result.errors]) == (False, ["refused: {'v': 'x'}"])


def test_rules_of_our_own_are_added_to_those_of_the_specification():
    strict = engine(rules=[Refusing])
    assert messages(strict.prepare("{ plain }", None)) == ["not plain"]
    assert messages(strict.prepare("{ unheardOf }", None)) == ["Cannot query field 'unheardOf' on type 'Query'."]


def test_rules_of_strawberry_hold_too():
    assert "cannot be explicitly set to null" in messages(engine().prepare("{ arguments(search: {exact: null}) }"))[0]
    assert "exactly one key" in messages(engine().prepare('{ arguments(one: {a: 1, b: "t"}) }'))[0]


MISSPELLED = {
    "a field": "{ plai }",
    "an argument": "{ arguments(tex: null) }",
    "a type": "{ search { ... on Autho { name } } }",
    "an enum value": "{ arguments(genre: POETR) }",
    "an input field": "{ arguments(search: {tex: null}) }",
    "a directive": "{ plain @skp(if: true) }",
    "a fragment": "{ ...Sear } fragment Searc on Query { plain }",
    "a variable's type": "query ($v: Genr) { arguments(genre: $v) }",
}


@pytest.mark.parametrize("what", MISSPELLED)
def test_no_suggestion_is_made_where_they_are_off(what):
    assert not any(
        "Did you mean" in message for message in messages(engine(suggestions=False).prepare(MISSPELLED[what]))
    )


@pytest.mark.parametrize("what", ["a field", "an argument", "a type", "an enum value", "an input field"])
def test_suggestions_are_made_where_they_are_on(what):
    told = messages(engine().prepare(MISSPELLED[what]))
    assert any("Did you mean" in message for message in told)
    assert (" Values are: " in told[0]) is (what == "an enum value")


@pytest.mark.parametrize("mode", ["compiled", "graphql-core"])
@pytest.mark.parametrize("suggestions", [True, False])
@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("query ($v: Genre = POETRY) { arguments(genres: [$v]) }", {"v": "POETR"}),
        ("query ($v: Search) { arguments(search: $v) }", {"v": {"tex": None}}),
    ],
)
def test_wrong_variables_are_refused_and_suggest_only_where_that_is_on(query, variables, suggestions, mode):
    result = engine(suggestions=suggestions, mode=mode).prepare(query).execute(variables, Context())
    assert result.data is None
    assert not result.executed
    assert any("Did you mean" in error.message for error in result.errors) is suggestions


def test_a_document_is_looked_at_once():
    looked_at = []
    remembering = engine(before_validation=[lambda document: looked_at.append(document) or []])
    first = remembering.prepare("query A { plain } query B { plain }", "A")
    assert remembering.prepare("query A { plain } query B { plain }", "A") is first
    remembering.prepare("query A { plain } query B { plain }", "B")
    remembering.prepare("query A { plain } query B { plain }", "C")
    assert len(looked_at) == 1


def test_a_refused_document_is_looked_at_once_too():
    looked_at = []
    remembering = engine(before_validation=[lambda document: looked_at.append(document) or []])
    assert remembering.prepare("{ nothingAtAll }") == remembering.prepare("{ nothingAtAll }")
    assert len(looked_at) == 1


def looked_at_again(documents, **limits):
    """Which of these documents are looked at again when all have been seen once."""
    looked_at = []
    small = engine(before_validation=[lambda document: looked_at.append(document.loc.source.body) or []], **limits)
    for document in documents:
        small.prepare(document)
    looked_at.clear()
    for document in documents:
        small.prepare(document)
    return looked_at


def test_the_number_of_documents_is_bounded_and_the_oldest_go():
    used = "{ a: plain }"
    looked_at = []
    small = engine(max_documents=2, before_validation=[lambda document: looked_at.append(document) or []])
    for document in (used, "{ b: plain }", used, "{ c: plain }", used):
        small.prepare(document)
    assert len(looked_at) == 3


def test_the_source_of_all_documents_together_is_bounded():
    documents = [f"{{ {name}: plain }}".ljust(100) for name in "abc"]
    assert looked_at_again(documents, max_characters=sum(map(len, documents))) == []
    assert looked_at_again(documents, max_characters=sum(map(len, documents)) - 1) == documents


def test_a_document_of_short_tokens_takes_as_much_as_one_of_long_ones():
    documents = [f"{{ {name}: plain }}" for name in "ab"]  # five tokens each
    assert looked_at_again(documents, max_characters=2 * 5 * 8) == []
    assert looked_at_again(documents, max_characters=2 * 5 * 8 - 1) == documents


def test_a_document_that_is_too_large_pushes_no_other_out():
    small, large = "{ a: plain }", ("{ " + " ".join(f"a{n}: plain" for n in range(9)) + " }").ljust(400)
    assert looked_at_again([small, large], max_characters=len(large) - 1) == [large]


@pytest.mark.parametrize("mode", ["compiled", "graphql-core"])
@pytest.mark.parametrize(
    "query", ["{ tagged }", "mutation { fast { count } }", "{ books { title writtenBy { name books { title } } } }"]
)
async def test_an_operation_that_is_not_kept_any_more_leaves_no_cycle_of_references(mode, query):
    small = engine(mode=mode, max_documents=1)
    operation = small.prepare(query)
    result = operation.execute({}, Context())
    assert not (await result if inspect.isawaitable(result) else result).errors
    del result
    small.prepare("{ pushesTheOtherOut }")
    with only_found_by_the_collector() as found:
        del operation
    assert not {each for each in found if "graphql" in each}


async def test_the_source_of_a_compiled_operation_can_be_read():
    operation = engine().prepare("query Titles { books { title } }")
    assert operation.source == ""
    operation.execute({}, Context())
    assert "source.title" in operation.source
    compile(operation.source, "operation", "exec")


def test_graphql_core_alone_compiles_nothing():
    plain = engine(mode="graphql-core")
    operation = plain.prepare("{ plain }")
    assert operation.execute({}, Context()).data == {"plain": "text"}
    assert operation.source == ""
    assert not plain.fallbacks


def schema_of(**options):
    return strawberry.Schema(query=SCHEMA.query, **options)._schema


class Timing(SchemaExtension):
    pass


@strawberry.directive(locations=[DirectiveLocation.FIELD])
def shout(value: str) -> str:
    return value.upper()


class OtherInfo(strawberry.Info):
    pass


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (lambda: schema_of(extensions=[Timing]), "no schema extensions"),
        (lambda: schema_of(directives=[shout]), "no custom operation directives"),
        (lambda: schema_of(config=StrawberryConfig(info_class=OtherInfo)), "Strawberry's own Info"),
        (lambda: schema_of(config=StrawberryConfig(enable_experimental_incremental_execution=True)), "incrementally"),
        (lambda: SCHEMA, "made by Strawberry"),
    ],
)
def test_a_schema_that_would_run_differently_is_refused(schema, reason):
    with pytest.raises(TypeError, match=reason):
        Engine(schema())


@strawberry.type
class Inner:
    """Says where it stands."""

    @strawberry.field
    def where(self, info: strawberry.Info) -> str:
        """The path, with the types that it leads through."""
        names, path = [], info.path
        while path is not None:
            names.append(f"{path.typename}.{path.key}")
            path = path.prev
        return " ".join(reversed(names))


@strawberry.type
class Outer:
    """Has some of them."""

    @strawberry.field
    def one(self) -> Inner:
        """One."""
        return Inner()

    @strawberry.field
    def many(self) -> list[Inner]:
        """Several."""
        return [Inner(), Inner()]


@strawberry.type
class Whole:
    """What is asked."""

    @strawberry.field
    def outers(self) -> list[Outer]:
        """One, in a list."""
        return [Outer()]


@pytest.mark.parametrize("mode", ["compiled", "graphql-core"])
def test_a_resolver_is_told_through_which_types_its_path_leads(mode):
    whole = Engine(strawberry.Schema(query=Whole)._schema, mode=mode)
    result = whole.prepare("{ outers { one { where } many { here: where } } }").execute({}, Context())

    assert result.data == {
        "outers": [
            {
                "one": {"where": "Whole.outers None.0 Outer.one Inner.where"},
                "many": [{"here": f"Whole.outers None.0 Outer.many None.{number} Inner.here"} for number in range(2)],
            }
        ]
    }


async def test_what_is_not_to_be_compiled_is_answered_all_the_same():
    made = engine()
    operation = made.prepare("query ($v: Boolean!) { plain @skip(if: $v) a: plain }", None)
    answers = []
    for compiles in (False, True, False):
        result = operation.execute({"v": False}, Context(), compiles=compiles)
        answers.append((await result if inspect.isawaitable(result) else result).data)
        assert bool(operation.source) is (len(answers) > 1)
    assert answers == [answers[0]] * 3
    assert not made.fallbacks
