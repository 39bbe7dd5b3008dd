"""How files are read: UTF-8 text of a bounded size, YAML 1.2, and CSV tables."""

from __future__ import annotations

import csv
import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, ClassVar

import yaml

from pbeauty.errors import ConfigError
from pbeauty.files import open_at_once

LARGEST_FILE = 16 << 20
"""Bytes of the largest file that is read as a whole."""
_LARGEST_DOCUMENT = 1_000_000
"""Values in a YAML document, those that aliases repeat included."""
_FROM_PIPES: dict[Path, bytes] = {}
"""What came out of pipes, each of which is empty when it is read again: a file is looked at more than once."""
_LISTED = 10
"""Wrong lines of a table that a message lists."""


def read_text(path: Path) -> str:
    """The content of a UTF-8 file of at most `LARGEST_FILE` bytes, without a byte order mark, or a ConfigError."""
    try:
        # A pipe that nobody writes to is empty, and not waited for.
        with BufferedReader(FileIO(path, opener=open_at_once)) as file:
            os.set_blocking(file.fileno(), True)
            content = file.read(LARGEST_FILE + 1)
            if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                content = _FROM_PIPES[path] = content or _FROM_PIPES.get(path, b"")
        text = content.decode("utf-8-sig") if len(content) <= LARGEST_FILE else None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"cannot read {path}: {not_utf8(error, line)}") from None
    except ValueError as error:  # a null byte in the path
        raise ConfigError(f"cannot read {str(path)!r}: {error}") from None
    if text is None:
        raise ConfigError(f"cannot read {path}: it is larger than {LARGEST_FILE >> 20} MiB")
    return text


def folder_of(path: Path) -> Path:
    """What the names of files in a file are relative to: its folder; of a pipe, say, the working directory."""
    return Path() if path.is_relative_to("/dev") or path.is_relative_to("/proc") else path.parent


def not_utf8(error: UnicodeDecodeError, line: int) -> str:
    """What is wrong with text that cannot be decoded, with the first byte at fault and its line."""
    byte = error.object[error.start]
    return f"it is not UTF-8 text: line {line} has the byte 0x{byte:02x}; save it as UTF-8"


# --- YAML --------------------------------------------------------------------------------------------------


class WrittenInt(int):
    """A whole number of a YAML document, which remembers how it is written."""

    text: str


class WrittenFloat(float):
    """A number with a fraction or an exponent, which remembers how it is written."""

    text: str


class _Loader(yaml.SafeLoader):
    """The core schema of YAML 1.2, with merge keys; what a mapping's keys are is text, and each is given once.

    PyYAML itself reads YAML 1.1, where 0123 is 83, 6:30 is 390, 2020-01-01 a date, and `no` is false.
    """

    yaml_implicit_resolvers: ClassVar[dict[str | None, Any]] = {}

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node and _values(node, {}) > _LARGEST_DOCUMENT:
            raise _fault(node, f"the document has more than {_LARGEST_DOCUMENT:,} values")
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError) as error:
            raise _fault(node, f"this value cannot be read ({error})") from None


def _fault(node: yaml.Node, text: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


def _values(node: yaml.Node, counted: dict[int, int]) -> int:
    """How many values a node stands for when all aliases in it are written out."""
    if id(node) not in counted:
        counted[id(node)] = 1  # of a node that holds itself, which is refused later
        if isinstance(node, yaml.CollectionNode):
            inner = (part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,)))
            counted[id(node)] = 1 + sum(_values(part, counted) for part in inner)
    return counted[id(node)]


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _fault(key, "a key must be text")
        if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
            raise _fault(key, f"the key {key.value!r} is given more than once")
        seen.add(key.value)
    loader.flatten_mapping(node)
    return {key.value: loader.construct_object(value, deep=True) for key, value in node.value}


def _integer(loader: _Loader, node: yaml.ScalarNode) -> WrittenInt:
    text = loader.construct_scalar(node)
    value = WrittenInt(text, 0 if text[:2] in ("0o", "0x") else 10)
    value.text = text
    return value


def _float(loader: _Loader, node: yaml.ScalarNode) -> WrittenFloat:
    text = loader.construct_scalar(node)
    value = WrittenFloat(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text.lower()))
    value.text = text
    return value


for _tag, _pattern, _constructor in (
    ("null", "~|null|Null|NULL|", None),
    ("bool", "true|True|TRUE|false|False|FALSE", None),
    ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _integer),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", _float),
    ("merge", "<<", None),
    ("map", None, _mapping),
):
    if _pattern is not None:
        _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), None)
    if _constructor:
        _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _constructor)


def parse(text: str, complaint: str) -> Any:
    """What a YAML text holds; its numbers are `WrittenInt` and `WrittenFloat`.

    Where it is not valid, a ConfigError begins with `complaint` and says where the fault is.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        if problem.startswith("but "):  # the second half of a sentence
            problem = f"{getattr(error, 'context', '')}, {problem}"
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{complaint}: {where}{problem}") from None
    except RecursionError:
        raise ConfigError(f"{complaint}: it is nested too deeply") from None


class _Dumper(yaml.SafeDumper):
    """Quotes all text that begins with no letter, which readers of YAML 1.1 and 1.2 might take for different things."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text[:1].isalpha() else '"')


_Dumper.add_representer(str, _text)
_Dumper.add_representer(WrittenInt, _Dumper.represent_int)
_Dumper.add_representer(WrittenFloat, _Dumper.represent_float)


def to_yaml(data: Any) -> str:
    """Plain data as YAML text."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


# --- CSV ---------------------------------------------------------------------------------------------------


def read_csv(text: str, name: str, needed: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV table with a header: the text of each cell by column, without spaces around it.

    What is no such table, or lacks a column that is `needed`, is a ConfigError, which calls it `name`.
    """
    reader = csv.reader(io.StringIO(text, newline=None), skipinitialspace=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
    except csv.Error as error:
        raise ConfigError(f"{name}, line {reader.line_num}: {error}") from None
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if len(lines) < 2:
        raise ConfigError(f"{name} has no rows below its header")
    header = lines[0][1]
    if faults := list(_header_faults(header, needed)):
        raise ConfigError(f"{name} {'; '.join(faults)}")
    if wrong := [(number, len(cells)) for number, cells in lines[1:] if len(cells) != len(header)]:
        listed = "; ".join(f"line {number}: {many} values" for number, many in wrong[:_LISTED])
        more = f"; and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        raise ConfigError(f"{name} has lines without a value for each of its {len(header)} columns: {listed}{more}")
    return [dict(zip(header, cells, strict=True)) for _, cells in lines[1:]]


def _header_faults(header: Sequence[str], needed: Sequence[str]) -> Iterator[str]:
    columns = ", ".join(header)
    if len(header) == 1 and re.search("[;\t]", columns):
        yield "separates its columns by ';' or tabs; separate them by commas"
        return
    if missing := [column for column in needed if column not in header]:
        yield f"has no column {', '.join(missing)}; its columns: {columns}"
    if unnamed := [str(number) for number, column in enumerate(header, start=1) if not column]:
        yield f"has no name for column {', '.join(unnamed)}"
    if twice := [column for column in dict.fromkeys(header) if column and header.count(column) > 1]:
        yield f"has the column {', '.join(twice)} more than once"
