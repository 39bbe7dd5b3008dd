"""The values that an experiment is made of: what each kind of key accepts, and what it says of anything else."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, StrictStr
from pydantic_core import PydanticCustomError

from pbeauty.files import CONTROL_CHARACTERS

LARGEST = 1e15
"""The largest number that an experiment may name, in size; arithmetic on guesses stays exact far beyond cents."""

RESERVED = (
    "group", "session", "background", "background_source", "written_by", "participant", "share", "run", "round",
    "guess", "status", "target", "seed", "seeding", "sessions", "count", "others", "low", "high", "multiplier",
    "offset", "aggregate", "target_rule", "win_rule", "win_by", "shift", "shift_rule", "median_rule", "fraction",
    "decimal", "percent", "words", "all_numbers", "players", "group_count", "groups", "composition", "only_one",
    "rules", "rules_paraphrased", "rules_as_story", "rules_as_fraction", "rules_as_decimal", "rules_as_percent",
    "rules_in_words", "reply", "rank",
)  # fmt: skip
"""Names that an attribute of participants cannot have, since prompts and results use them."""


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value can be a number of the experiment: not infinite, not NaN, no larger than +-1e15."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PydanticCustomError("number", "expected a number")
    if not is_number(value):
        raise PydanticCustomError("number", "expected a finite number, at most 1e15 in size")
    return float(value) + 0.0  # never -0.0


def _multiplier(value: Any) -> str:
    """The multiplier as text, as prompts show it: a fraction such as `2/3` or a decimal such as `0.7`."""
    text = ""
    if isinstance(value, str):
        text = re.sub(r" */ *", "/", value.strip())
    elif is_number(value):
        text = f"{Decimal(str(value)):f}"  # 0.00001, where str says 1e-05
    if not re.fullmatch(r"\+?[0-9]{1,9}(\.[0-9]{1,20})?(/[0-9]{1,9}(\.[0-9]{1,20})?)?", text):
        raise PydanticCustomError("multiplier", "expected a positive fraction such as 2/3 or a decimal such as 0.7")
    try:
        if fraction(text) == 0:
            raise PydanticCustomError("multiplier", "the multiplier must be above zero")
    except ZeroDivisionError:
        raise PydanticCustomError("multiplier", "the denominator is zero; give a fraction such as 2/3") from None
    return text.lstrip("+")


@cache
def fraction(text: str) -> Fraction:
    """The exact number that a multiplier such as `2/3` or `0.7` stands for."""
    above, _, below = text.partition("/")
    return Fraction(above) / Fraction(below or 1)


def _slug(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise PydanticCustomError(
            "slug", "expected letters, digits, '.', '_' and '-' only (it names a folder), at most 100 of them"
        )
    return value


def _text(value: str) -> str:
    if not value.isprintable() or not value.strip():
        raise PydanticCustomError("text", "expected printable text")
    return value


def _share(value: Any) -> float:
    """A share of a population: a number, or a fraction as text such as `1/6`."""
    if isinstance(value, str) and re.fullmatch(r" *[0-9]{1,9} */ *[1-9][0-9]{0,8} *", value):
        value = float(Fraction(value.replace(" ", "")))
    if not is_number(value) or not 0 <= value <= 1:
        raise PydanticCustomError("share", "expected a share from 0 to 1, or a fraction such as 1/6")
    return float(value)


def _whole(value: Any) -> Any:
    """A number without a fraction, such as 1e6, as a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53 else value


def _prose(value: str) -> str:
    if found := CONTROL_CHARACTERS.search(value):
        raise PydanticCustomError("fault", "it has the character {code}, which no text has", {"code": repr(found[0])})
    return value


def label(value: Any) -> Any:
    """A value of an attribute: text, or a number or true/false, which stand for their text as it is written."""
    value = str(value).lower() if isinstance(value, bool) else value
    return getattr(value, "text", str(value)) if isinstance(value, (int, float)) else value


def _once(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise PydanticCustomError("fault", "each quantity can be announced once")
    return value


def _attribute(value: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_]{0,49}", value):
        raise PydanticCustomError("attribute", "expected a name of small letters, digits and '_'")
    if value in RESERVED:
        raise PydanticCustomError("attribute", "expected another name, since prompts or results use this one")
    return value


Number = Annotated[float, BeforeValidator(_number)]
Whole = Annotated[StrictInt, BeforeValidator(_whole)]
Multiplier = Annotated[str, BeforeValidator(_multiplier)]
Slug = Annotated[StrictStr, AfterValidator(_slug)]
Text = Annotated[StrictStr, AfterValidator(_text)]
Prose = Annotated[StrictStr, AfterValidator(_prose)]
PositiveInt = Annotated[Whole, Field(ge=1, lt=2**31)]
Announced = Literal["target", "mean", "median", "winning_guess", "group_numbers", "own_rank"]
Announcements = Annotated[tuple[Announced, ...], AfterValidator(_once)]
Share = Annotated[float, BeforeValidator(_share)]
Label = Annotated[StrictStr, BeforeValidator(label), AfterValidator(_text)]
Attribute = Annotated[StrictStr, AfterValidator(_attribute)]
