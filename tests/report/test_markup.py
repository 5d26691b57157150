"""Markup: what is text stays text, in HTML and in JSON."""

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fc7.engine.report.markup import Markup, element, fill, join, json_block

# What HTML itself changes or forbids in text: NUL, lone surrogates, carriage returns.
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"))


class Reader(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(TEXT, TEXT)
def test_any_text_comes_back_as_text_and_attribute(text: str, attribute: str) -> None:
    read = Reader(element("p", text, title=attribute))
    assert read.tags == [("p", [("title", attribute)])]
    assert read.text == text


@given(TEXT)
def test_any_value_survives_in_json_without_ending_its_element(text: str) -> None:
    block = json_block("data", {text: [text]})
    body = block.removeprefix('<script type="application/json" id="data">').removesuffix(
        "</script>"
    )
    assert not set("<>&") & set(body)
    assert json.loads(body) == {text: [text]}


def test_markup_nests_without_being_escaped_again() -> None:
    inner = element("b", "<1>")
    assert element("p", inner, None, " & ", 2) == "<p><b>&lt;1&gt;</b> &amp; 2</p>"
    assert join(["<", None, Markup("<br>")], ", ") == "&lt;, <br>"


def test_attributes_are_named_and_left_out() -> None:
    made = element("button", class_="a", data_row=3, hidden=True, title=None, disabled=False)
    assert made == '<button class="a" data-row="3" hidden></button>'
    assert element("img", alt="") == '<img alt="">'


def test_slots_inside_values_are_left_alone() -> None:
    assert fill("{{a}}-{{b}}", {"a": "{{b}}", "b": "1"}) == "{{b}}-1"
    with pytest.raises(KeyError, match="b"):
        fill("{{a}}-{{b}}", {"a": "1"})
