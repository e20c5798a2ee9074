from __future__ import annotations

import base64
import hashlib
import html
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.html_pages import Elements, unpacked

from ksmtrace.processes.identity import clean
from ksmtrace.views.html.markup import Column, Html, element, table
from ksmtrace.views.html.packing import packed
from ksmtrace.views.html.page import ASSETS, asset, embed, escape, render_page

ANY_TEXT = st.one_of(
    st.text(),
    st.text(st.characters(codec=None)),
    st.sampled_from(["</script>", "<!--", "]]>", "\u2028", "\u202e", "\x00", "&lt;", "<script>"]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), ANY_TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(ANY_TEXT, inner)),
    max_leaves=11,
)


@given(JSON)
def test_any_value_embedded_comes_back_the_same(value: object) -> None:
    page = render_page(title="t", body="", data={"x": value})
    assert Elements(page).data("x") == value


@given(ANY_TEXT)
def test_nothing_embedded_is_markup(text: str) -> None:
    inside = embed("x", {text: text}).partition(">")[2].removesuffix("</script>")
    assert not set("<>&\u2028\u2029") & set(inside)
    assert inside.isascii()


@given(ANY_TEXT)
def test_text_escaped_reads_as_it_was_and_interprets_as_nothing(text: str) -> None:
    escaped = escape(text)
    assert not set("<>\"'") & set(escaped)
    assert html.unescape(escaped) == clean(text)


@given(ANY_TEXT, ANY_TEXT)
@settings(max_examples=53)
def test_a_cell_and_an_attribute_hold_any_text(text: str, title: str) -> None:
    page = table("c", [Column("n", "name", title)], [[text]]) + element("p", "x", title=title)
    found = Elements(page)
    assert [words for _, words in found.of("bdi")] == ([clean(text)] if clean(text) else [""])
    assert found.of("p")[0][0].get("title", "") == clean(title)
    assert {tag for tag, _, _ in found.found} <= {
        "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "bdi", "abbr", "p",
    }  # fmt: skip


def test_markup_is_not_escaped_twice() -> None:
    assert element("p", element("b", "1 < 2")) == "<p><b>1 &lt; 2</b></p>"
    assert element("p", Html("&amp;")) == "<p>&amp;</p>"


def test_the_policy_names_every_script_of_the_page_and_nothing_else() -> None:
    page = render_page(title="t", body="", scripts=["first();", "second('ä');"], data={"x": 1})
    found = Elements(page)
    policy = next(str(a["content"]) for a, _ in found.of("meta") if a.get("http-equiv") is not None)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    digests = re.findall(r"'sha256-([^']+)'", policy)
    code = [text for a, text in found.of("script") if a.get("type") is None]
    assert len(code) == 4
    told = [base64.b64encode(hashlib.sha256(c.encode()).digest()).decode() for c in code]
    assert digests == told
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    assert "http" not in policy


def test_a_page_refers_to_nothing_outside() -> None:
    scripts = [asset(str(p.relative_to(ASSETS))) for p in sorted(ASSETS.rglob("*.js"))]
    styles = [asset(str(p.relative_to(ASSETS))) for p in sorted(ASSETS.rglob("*.css"))]
    assert len(scripts) > 5
    page = render_page(title="t", body="", scripts=scripts, styles=styles)
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!data:|#)\w*:?//""", page)
    assert "@import" not in page
    assert "url(" not in page
    for word in ("fetch(", "XMLHttpRequest", "WebSocket", "importScripts", "sendBeacon"):
        assert word not in page


@pytest.mark.parametrize("text", ["x = '</script>'", "/* </STYLE> */", "<!-- x"])
def test_an_asset_that_would_end_its_element_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ends its element"):
        render_page(title="t", body="", scripts=[text])


def test_a_title_is_text() -> None:
    found = Elements(render_page(title="<b>\u202e", body="", subtitle="<i>"))
    assert found.of("title") == [({}, "<b>\\u202e")]
    assert found.of("b") == found.of("i") == []


@given(st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_whole_numbers_packed_come_back(values: list[int]) -> None:
    assert unpacked(packed(np.array(values, np.int64))).tolist() == values


@given(st.lists(st.floats(width=32)))
def test_floats_packed_come_back(values: list[float]) -> None:
    found = unpacked(packed(np.array(values, np.float64)))
    assert np.array_equal(found, np.array(values, np.float32), equal_nan=True)


def test_numbers_too_large_to_pack_are_refused() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        packed(np.array([1 << 40]))


def test_not_a_number_is_refused_where_json_has_none() -> None:
    with pytest.raises(ValueError, match="JSON"):
        embed("x", float("nan"))


def test_the_licence_of_the_bundled_library_is_beside_it() -> None:
    from ksmtrace.views.html.report import UPLOT

    assert "MIT" in asset("uplot/LICENSE")
    assert f"(v{UPLOT})" in asset("uplot/uPlot.iife.min.js")
