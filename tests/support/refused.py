"""Experiments that are refused, and what is said of them."""

from __future__ import annotations

import re

import pytest

from pbeauty.config.loader import loads
from pbeauty.errors import ConfigError

BASE = "name: trial\npopulation: [{name: crowd, count: 3, kind: uniform}]\n"


def refusal(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loads(text, overrides)
    return str(caught.value)


def faults(text: str, *overrides: str) -> dict[str, str]:
    """Every fault that the message lists, by key."""
    heading, *lines = refusal(text, *overrides).splitlines()
    count = re.fullmatch(r"experiment: (\d+) errors?", heading)
    assert count, heading
    assert int(count[1]) == len(lines)
    assert heading.endswith("error" if len(lines) == 1 else "errors")
    told = dict(line.strip().split(": ", 1) for line in lines)
    assert len(told) == len(lines), "a key is told twice"
    return told


def one_group(text: str) -> str:
    return f"name: trial\npopulation: [{{name: crowd, count: 3, {text}}}]\n"
