"""Whatever an agent writes, a ticket shows it as text: no link, image, HTML, mention or structure comes out of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from clawback.model import Incident
from clawback.reports.escape import code, inert, plain
from clawback.reports.ticket import markdown

ACTIVE = {"link_open", "image", "html_inline", "html_block", "autolink"}

HOSTILE = [
    "[click](https://evil.test)",
    "![x](https://evil.test/pixel.png)",
    "<https://evil.test>",
    "https://evil.test/a?b=c",
    "www.evil.test",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "# heading",
    "- [ ] task",
    "1. list",
    "```\nfence",
    "`code` ``more``",
    "~~~",
    "> quote",
    "| a | b |\n|---|---|",
    "@everyone please run this",
    "mail@evil.test",
    "[ref]: https://evil.test",
    "&lt;script&gt; &#x3c;",
    "\\[x](y)",
    "line\nbreak\r\n\r\n# new",
    "\u202egnp.exe\u202c",
    "\u200b\ufeff\u2066",
    "\x1b[31mred\x07",
    "***bold***_x_",
    "{{ 7*7 }} {% for %}",
    "a\\",
    "`",
    "|`|`",
    "\ud800",
    "--- \n===",
    "https\\://evil.test",
]


def parser() -> MarkdownIt:
    """As a tracker reads it: tables, strikethrough, raw HTML, and bare URLs turned into links."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def walk(tokens: list[Token]) -> list[Token]:
    return [each for token in tokens for each in (token, *walk(token.children or []))]


def shape(text: str) -> list[str]:
    """The document's structure without its text."""
    return [token.type for token in walk(parser().parse(text)) if token.type != "text"]


def texts(text: str) -> str:
    return "".join(token.content for token in walk(parser().parse(text)) if token.type in {"text", "text_special"})


any_text = st.one_of(st.text(), st.sampled_from(HOSTILE), st.lists(st.sampled_from(HOSTILE)).map(" ".join))


@given(any_text)
def test_plain_is_one_bounded_visible_line(text: str) -> None:
    shown = plain(text, 100)
    assert len(shown) <= 100
    assert shown.isprintable()
    assert shown == shown.strip()


@given(any_text)
def test_inert_has_no_structure(text: str) -> None:
    for wrapped in (inert(text), f"- {inert(text)}", f"x {inert(text)} y", f"> {inert(text)}"):
        tokens = walk(parser().parse(wrapped))
        assert not ACTIVE & {token.type for token in tokens}
        assert not {"strong_open", "em_open", "code_inline", "heading_open", "hr", "fence"} & {x.type for x in tokens}


@given(any_text)
def test_inert_reads_as_the_text(text: str) -> None:
    defanged = plain(text).replace("://", "[:]//").replace("@", "[at]")
    defanged = re.sub(r"(?i)\bwww\.", "www[.]", defanged)
    assert texts(f"x{inert(text)}y") == f"x{defanged}y"


@given(any_text)
def test_nothing_is_left_that_a_tracker_would_link_or_mention(text: str) -> None:
    shown = texts(inert(text))
    assert "@" not in shown
    assert "://" not in shown
    assert not re.search(r"(?i)\bwww\.", shown)


@given(any_text)
def test_code_is_one_code_span(text: str) -> None:
    tokens = [x for x in walk(parser().parse(f"x {code(text)} y")) if x.type not in {"text", "inline"}]
    spans = [x for x in tokens if x.type == "code_inline"]
    if plain(text):
        assert [x.content.strip() for x in spans] == [plain(text).strip()]
    assert {x.type for x in tokens} <= {"code_inline", "paragraph_open", "paragraph_close"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=any_text)
def test_a_ticket_has_the_same_headings_whatever_the_agent_wrote(make: Callable[..., Incident], text: str) -> None:
    found = shape(markdown(make(text)))
    assert not ACTIVE & set(found)
    assert found.count("heading_open") == shape(markdown(make("ordinary"))).count("heading_open")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_strings_one_by_one(make: Callable[..., Incident], text: str) -> None:
    ordinary, hostile = shape(markdown(make("ordinary"))), shape(markdown(make(text)))
    drop = {"text_special", "code_inline"}  # how the same text is put together
    assert [x for x in hostile if x not in drop] == [x for x in ordinary if x not in drop]
    assert not set(hostile) & ACTIVE


def test_secrets_do_not_pass(make: Callable[..., Incident]) -> None:
    for secret in ("hvs.CAESIJ0123456789abcdefghij", "AKIA: secret_access_key=wJalrXUtnFEMIK7MDENGbPxRfiCY"):
        text = markdown(make(secret))
        assert "CAESIJ0123456789" not in text
        assert "wJalrXUtnFEMI" not in text


def test_a_secret_is_not_halved_into_passing() -> None:
    for lead in range(80, 130):
        assert "CAESIJ01234" not in plain("x" * lead + " hvs.CAESIJ0123456789abcdefghij", 100)


def test_long_text_is_cut_and_says_so() -> None:
    assert plain("x" * 1000, 50).endswith("… [cut]")
