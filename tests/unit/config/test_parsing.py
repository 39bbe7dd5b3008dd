"""YAML as version 1.2 has it, labels as they are written, and CSV tables as spreadsheets save them."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbeauty.config.loader import dumps, load, loads
from pbeauty.config.parsing import parse, read_csv, read_text, to_yaml
from pbeauty.config.persona_files import read_file
from pbeauty.config.sweep import is_sweep
from pbeauty.errors import ConfigError

# --- scalars -----------------------------------------------------------------------------------------------


@given(st.from_regex(r"[-+]?[0-9]{1,40}", fullmatch=True))
def test_digits_are_a_decimal_number(text):
    assert parse(text, "") == int(text, 10)
    assert parse(f"[{text}]", "")[0].text == text


@given(st.from_regex(r"0o[0-7]{1,20}|0x[0-9a-fA-F]{1,20}", fullmatch=True))
def test_octal_and_hexadecimal_numbers_say_so(text):
    assert parse(text, "") == int(text, 0)


@given(st.from_regex(r"[-+]?(\.[0-9]{1,9}|[0-9]{1,9}\.[0-9]{0,9}|[0-9]{1,9}[eE][-+]?[0-9]{1,2})", fullmatch=True))
def test_numbers_with_a_point_or_an_exponent(text):
    assert parse(text, "") == float(text)
    assert parse(text, "").text == text


@given(
    st.from_regex(r"[-+]?[0-9]+(:[0-5]?[0-9]){1,3}(\.[0-9]*)?", fullmatch=True)  # sexagesimal numbers of YAML 1.1
    | st.from_regex(r"[0-9]+_[0-9_]*", fullmatch=True)
    | st.from_regex(r"0b[01]+|[-+]0[xo][0-7]+|[0-9]{4}-[0-9]{2}-[0-9]{2}", fullmatch=True)
    | st.sampled_from(
        ["yes", "no", "on", "off", "Yes", "NO", "y", "n", "tRUE", "nULL", "=", "inf", "nan", "-.nan", "."]
    )
)
def test_what_only_yaml_1_1_takes_for_something_else_is_text(text):
    assert parse(text, "") == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("FALSE", False), ("~", None), ("Null", None), ("", None), ("-.INF", -math.inf), ("'1'", "1")],
)
def test_words_of_the_core_schema(text, value):
    assert parse(text, "") == value


plain = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff"), max_size=12)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | plain,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain, inner, max_size=4),
    )
)
def test_what_is_written_is_read_back(data):
    assert parse(to_yaml(data), "") == data


def test_aliases_cannot_blow_a_document_up():
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    with pytest.raises(ConfigError, match="more than 1,000,000 values"):
        parse(bomb, "it")


# --- labels ------------------------------------------------------------------------------------------------

EXPERIMENT = "name: x\npopulation: [{{name: a, count: 9, kind: llm, personas: {{{}}}}}]"


def labels(personas, *overrides):
    experiment = loads(EXPERIMENT.format(personas), overrides)
    assert loads(dumps(experiment)) == experiment
    return experiment.population[0].personas


@given(
    st.lists(
        st.from_regex(r"[-+]?[0-9]{1,9}(\.[0-9]{1,9})?([eE][0-9])?|[a-z]{1,5}|0o7|0x1F|6:30|1_0", fullmatch=True),
        min_size=1,
        max_size=5,
        unique=True,
    ).filter(lambda found: not {"null", "true", "false"} & set(found))
)
def test_labels_keep_their_text(texts):
    share = 1 / len(texts)
    assert list(labels(f"attributes: {{zip: [{', '.join(texts)}]}}").attributes["zip"]) == texts
    pairs = ", ".join(f"{text}: {share}" for text in texts)
    assert list(labels(f"attributes: {{zip: {{{pairs}}}}}").attributes["zip"]) == texts
    rows = ", ".join(f"{{zip: {text}}}" for text in texts)
    assert [row["zip"] for row in labels(f"joint: [{rows}]").joint] == texts
    assigned = labels("", f"population.0.personas.attributes.zip=[{', '.join(texts)}]")
    assert list(assigned.attributes["zip"]) == texts


def test_labels_that_are_words_of_yaml():
    assert list(labels("attributes: {own: [yes, no], own_too: {true: 0.5, null: 0.5}}").attributes["own_too"]) == [
        "true",
        "null",
    ]
    assert list(labels("attributes: {own: [true, false]}").attributes["own"]) == ["true", "false"]


def test_a_label_that_is_listed_twice_is_refused():
    with pytest.raises(ConfigError, match="zip: it lists 1 more than once"):
        labels("attributes: {zip: [1, 2, 1]}")


# --- CSV ---------------------------------------------------------------------------------------------------

cells = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).map(str.strip).filter(bool)


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1, max_size=4)))
def test_tables_are_read_as_they_were_written(rows):
    header = [f"column {number}" for number in range(len(rows[0]))]
    for line_end in ("\n", "\r\n", "\r"):
        file = io.StringIO()
        csv.writer(file, lineterminator=line_end).writerows([header, *rows])
        assert [list(row.values()) for row in read_csv(file.getvalue(), "it")] == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows below its header"),
        ("a,b\n", "has no rows below its header"),
        ("a,a\n1,2\n", "has the column a more than once"),
        ("a,,b,\n1,2,3,4\n", "has no name for column 2, 4"),
        ("a;b\n1;2\n", "separates its columns by ';' or tabs"),
        ("a\tb\n1\t2\n", "separates its columns by ';' or tabs"),
        ("a,b\n1\n1,2,3\n", "line 2: 1 values; line 3: 3 values"),
        ('a\n"' + "x" * 200_000 + '"\n', "line 2: field larger than field limit"),
    ],
)
def test_tables_that_are_none(text, said):
    with pytest.raises(ConfigError, match=f"^cases.csv.*{re.escape(said)}"):
        read_csv(text, "cases.csv")


# --- files -------------------------------------------------------------------------------------------------


def test_a_byte_order_mark_is_no_part_of_any_file(tmp_path):
    group = b'{"name": "a", "count": 3, "kind": "llm", "user_prompt": "mine", "personas": {"file": "people.jsonl"}}'
    text = b'{"name": "x", "population": [' + group + b'], "prompts": "mine.yaml"}'
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + text)
    (tmp_path / "mine.yaml").write_bytes(b"\xef\xbb\xbfuser: {mine: Hello}")
    (tmp_path / "people.jsonl").write_bytes(b"\xef\xbb\xbf" + b'{"background": "You are Ann."}\r\n' * 3)
    experiment = load(tmp_path / "x.json")
    assert experiment.prompts.user == {"mine": "Hello"}
    (tmp_path / "cases.csv").write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n")
    assert read_csv(read_text(tmp_path / "cases.csv"), "cases.csv") == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"background": "You are \xe9."}', "it is not UTF-8 text: line 1 has the byte 0xe9"),
        (b'{"background": "' + b"x" * (1 << 20) + b'"}', "line 1: it has more than 1,024 KiB"),
        (b'{"background": "\\ud800"}', "'background' has a character that no text has"),
        (b'{"background": "x", "job": "\\u001b[31m"}', "'job' has a character that no text has"),
    ],
)
def test_backgrounds_are_text_of_a_bounded_length(content, said, tmp_path):
    (tmp_path / "people.jsonl").write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(said)):
        read_file(tmp_path / "people.jsonl", "a", 3)


def test_files_without_an_end_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no regular file"):
        loads(EXPERIMENT.format("file: /dev/zero"))
    with pytest.raises(ConfigError, match="prompts: cannot read /dev/zero: it is larger than"):
        loads("name: x\nprompts: /dev/zero\npopulation: [{name: a, count: 1, kind: llm}]")


def test_what_comes_out_of_a_pipe_is_read_once_and_looked_at_again():
    reader, writer = os.pipe()
    os.write(writer, b"name: x\npopulation: [{name: a, count: 1, kind: uniform}]")
    os.close(writer)
    path = Path(f"/dev/fd/{reader}")
    assert not is_sweep(path)
    assert load(path).name == "x"
    os.close(reader)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="found nothing"):
        load(tmp_path / "pipe.yaml")


def test_no_more_people_are_read_than_there_are(tmp_path):
    line = '{"background": "You are Ann.", "zip": 02134}\n'.replace("02134", "1250000.50")
    (tmp_path / "people.jsonl").write_text(line * 3 + "no JSON\n")
    assert read_file(tmp_path / "people.jsonl", "a", 3) == [{"background": "You are Ann.", "zip": "1250000.50"}] * 3
