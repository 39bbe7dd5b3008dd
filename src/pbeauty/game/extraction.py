r"""What a participant's reply says: text -> guess or none, with a status and the rule that read it.

A guess is taken only from a statement. A number that nobody states is not a choice, even if it is the only one in the
text: such a reply goes to a second call of the model (`prompts.EXTRACTION`) or is asked for again, so a pattern that
might misread is worth less here than one that gives up. The rules, by the names of `ReadingRule`:

- `JSON`: a field such as `{"guess": 33}`. It counts before everything else.
- `NUMBER_ALONE`: the last line is a number and nothing else, which counts before the statements below; or the reply
  opens with a number that is set off ("33, because ..."), which counts where there is no such statement.
- `ANSWER_LINE` ("My number: 22"), `BOXED` (`\boxed{22}`, `<answer>22</answer>`, a lone `[22]`), `OWN_WORDS` ("I'll go
  with 22", "my guess is 22"): the last of these statements counts, since people correct themselves. "Wait" and the
  like take back what was stated before.

Where a statement leads into a sum ("My number: 2/3 × 50 = 33.3") its result counts. Conditions ("if I choose 50") and
counts ("let's pick 3 more") are no statements. Several numbers side by side ("20 or 30", "20-30") are a doubt, and so
is a dash that could be a minus sign; where the last statement is in doubt there is no guess. A single comma is a
decimal one ("33,5"); before exactly three digits ("1,000") it separates thousands if the range reaches that far, and
is a doubt otherwise. In a truncated reply a number at the cut may be half of one, and does not count.

Every pattern looks at a bounded stretch of text per position, so reading takes time linear in the reply.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import cache, lru_cache
from typing import NamedTuple

from pbeauty.game.records import ReadingRule, Status


class Reading(NamedTuple):
    """What a reply came to."""

    guess: float
    """NaN unless the status is `OK`."""
    status: Status
    """`OK`, `OUT_OF_RANGE`, `UNPARSABLE` or `TRUNCATED`."""
    rule: ReadingRule = ReadingRule.NONE
    """Which rule read the guess; `NONE` where there is none."""


@lru_cache(maxsize=1024)  # short replies are often alike
def read_guess(text: str, low: float, high: float, truncated: bool = False) -> Reading:
    """Reads the number from `low` to `high` that the author of a reply states as a choice, by the rules of this module.

    `truncated` replies were cut at `max_tokens`.
    """
    if not truncated and _JUST_A_NUMBER.fullmatch(text):
        value, rule = float(text), ReadingRule.NUMBER_ALONE
    else:
        value, rule = _stated(_plain(text) + _CUT * truncated, low, high)
    reading = _reading(value, rule, low, high)
    return Reading(math.nan, Status.TRUNCATED) if truncated and reading.status == Status.UNPARSABLE else reading


def read_extraction(text: str, low: float, high: float, truncated: bool = False) -> Reading:
    """Reads the reply to `prompts.EXTRACTION`: a number, or `none`. A reply that was cut says nothing.

    It speaks about somebody else ("The player picks 33"), so a number without any other beside it counts too.
    """
    plain = _plain(text)
    if truncated or _DENIED.search(plain):
        return Reading(math.nan, Status.UNPARSABLE)
    reading = read_guess(text, low, high)
    numbers = list(_NUMBERS.finditer(plain))
    if reading.status != Status.UNPARSABLE or len(numbers) != 1:
        return reading
    unclear = _NO_CHOICE_AFTER.match(plain, numbers[0].end())
    return _reading(math.nan if unclear else _beside(numbers[0], low, high), ReadingRule.EXTRACTION, low, high)


def number_pattern(low: float, high: float) -> str:
    """A regular expression for exactly the numbers from `low` to `high` that have at most two decimals.

    It is what `guided: number` lets an engine sample. Whole numbers have no leading zeros, and zero has no sign.

    Raises:
        ValueError: if there is no such number.
    """
    found = []
    for decimals in range(3):
        first = int((Decimal(repr(low)).scaleb(decimals)).to_integral_value(ROUND_CEILING))
        last = int((Decimal(repr(high)).scaleb(decimals)).to_integral_value(ROUND_FLOOR))
        found += [f"-{pattern}" for pattern in _ranges(max(-last, 1), -first, decimals)]
        found += _ranges(max(first, 0), last, decimals)
    if not found:
        raise ValueError(f"no number with two decimals at most is between {low} and {high}")
    return f"({'|'.join(found)})"


# --- tables ------------------------------------------------------------------------------------------------

_JUST_A_NUMBER = re.compile(r"\s{0,9}-?[0-9]{1,9}(?:\.[0-9]{1,9})?\s{0,9}")
"""What most direct replies are: nothing to weigh. (`1,000` and the like are weighed.)"""
_CUT = "\ue000"  # stands at the end of a truncated reply: whatever might have come next
_TRANSLATED = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},  # full-width forms of ASCII
    **dict.fromkeys([*range(32), 127, 0xA0, 0x202F], " "),
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff$`" + _CUT)),  # invisible, or markup
    **dict.fromkeys(map(ord, "−–‑"), "-"),
    **dict.fromkeys(map(ord, "“”"), '"'),
    ord("’"): "'",
    ord("\n"): "\n",
}
_MARKUP = re.compile(r"(?<![0-9])\*\*|\*\*(?![0-9])|\\(?:text|math)[a-z]{0,6}|\\[()\[\]]")
# The range in brackets, as in "My number (0-100): 22".
_RANGE = re.compile(r" ?[(\[](?:between |from )?-?[0-9.]{1,12} ?(?:-|to|and|,) ?-?[0-9.]{1,12}[)\]]")
_LIST_MARKER = re.compile(r"(?m)^[ #>*-]{0,8}([0-9]{1,3})[.)](?: (?=\S)|(?=[^\s0-9]))")
_DENIED = re.compile(r"\A\W*(?:none|null|n/a)\b|\bnot? (?:an?|any|clear|single|specific|number|pick)\b", re.IGNORECASE)

# Repeated groups that give nothing back are written (?>...): before Python 3.11.5 `*+` after a group could fail where
# it should match (python/cpython#106052).
_NUMBER = (
    r"(?P<sign>(?<![A-Za-z0-9_.)\]%])[-+]|(?:minus|negative) )?"
    r"(?P<digits>(?<![A-Za-z0-9_.])(?>[0-9]+(?:[.,][0-9]+)*|\.[0-9]+))(?![A-Za-z_0-9²³½⅓⅔¼¾])"
)
_NUMBERS = re.compile(_NUMBER, re.IGNORECASE)
_NOUN = r"(?:number|guess|choice|pick|answer|selection|submission|bid|decision)\b"
_ADJECTIVE = (
    r"(?:(?:final|chosen|own|best|optimal|new|next|current|actual|first|initial|strategic|updated|revised|selected"
    r"|secret|logical|rational|reasonable|good|ideal) )"
)
_VERB = (
    r"(?:choos(?:e|ing)|pick(?:ing)?|select(?:ing)?|guess(?:ing)?|(?:go|stick|stay)(?:ing)? (?:with|for|at)"
    r"|opt(?:ing)? for|settl(?:e|ing) (?:on|for|with)|decid(?:e|ing) on|submit(?:ting)?|bid(?:ding)?|playing"
    r"|aim(?:ing)? for)\b"
)
_FILLER = (
    r"(?:will|would|shall|should|am|be|going|gonna|have|decided|inclined|to|like|want|rather|therefore|thus|then|now|just"
    r"|[a-z]{2,14}ly)"
)
_SPEAKER = (
    rf"(?:\b(?:I|we|let me|let us|let's)(?:'(?:ll|d|m|re|ve))?(?: {_FILLER}){{0,4}} "
    rf"(?:{_VERB}|(?:play|name|take|start(?:ing)? (?:with|by \w{{1,12}}ing))\b)|\bI'(?:d|ll) say\b"
    r"|\bI(?: have|'ve)(?: \w{2,14}ly)? (?:chosen|picked|selected|decided on|settled on)\b"
    # I'll go one step further and choose 22
    rf"|\bI(?:'ll| will|'d| would) (?:go|play|think|aim|stay|be)\b[^.!?;\n]{{0,40}}? and {_VERB})"
)
_WHEN = (
    r"(?: of choice| chosen)?(?:,? (?:for|in|of) (?:this|the|my)?(?: ?[a-z]{4,7})? ?(?:round|game|time)(?: [0-9]+)?)?"
)
_IS = r"(?:is|would be|will be|should be)\b"
_GAP = (
    r"(?>(?:[ \n:=\"'(\[{}<>*#≈~→—]|(?:about|around|approximately|roughly|exactly|simply|just|at|somewhere|something"
    r"|an?|the|my|our|final|number|guess|value|integer|choice|answer|pick|therefore|thus|now|of|like|as|be|is)\b"
    r"|数字|是|为|大约){0,16})"
)
"""What may stand between the words that lead in a choice and its number."""
_STATEMENT = re.compile(
    r"(?P<retraction>\b(?:wait|on second thought|let me re(?:consider|think)|scratch that|actually,))|(?:"
    rf"(?P<answer_line>(?:\b(?:my|our|final|your) {_ADJECTIVE}{{0,2}}{_NOUN}{_WHEN}"
    rf"|(?:^|(?<=[.!?#>-] )){_ADJECTIVE}?{_NOUN}{_WHEN}) ?(?:[:=→—]|->|-(?= ))"
    # Participants with Chinese backgrounds answer in Chinese: 我选择22, 我的数字是22.
    r"|(?:我的|最终)(?:数字|答案|选择)(?:是|为|:))"
    r"|(?P<boxed>\bboxed ?\{|<(?:(?:my|final)[_ ])?(?:number|guess|choice|answer)>)"
    rf"|(?P<own_words>{_SPEAKER}"
    # So pick 22; Going with 22; guessing: 22
    rf"|(?:^|(?<=[.!?] )|\b(?:so|thus|therefore|hence),? )(?:just |simply )?{_VERB}"
    # My final guess for this round is 22; the number I choose is 22; the final answer is 22
    rf"|\b(?:(?:my|our|your|the final) {_ADJECTIVE}{{0,2}}{_NOUN}{_WHEN}"
    rf"|{_NOUN} (?:that )?{_SPEAKER}{_WHEN}) ?(?:{_IS}|:)"
    # The answer is 22: at the end of the reply, and not in the middle of an explanation
    rf"|\b(?:the|an?) {_ADJECTIVE}{{0,2}}{_NOUN} (?:is|would be) (?=[^\w\n]{{0,9}}[0-9.,]{{1,12}}[^\w\n]{{0,9}}\n?\Z)"
    r"|我[会将就还是最终决定]{0,8}(?:选择?|猜)(?:的数字)?)"
    rf"){_GAP}{_NUMBER}",
    re.IGNORECASE | re.MULTILINE,
)
_JSON = re.compile(
    rf"[\"'](?:(?:my|final|chosen|your)[_ ])?{_NOUN}[\"'] ?: ?[\"'*(\[]{{0,3}}{_NUMBER}[\"'*)\]]{{0,3}}\s{{0,99}}[,}}]",
    re.IGNORECASE,
)
_BRACKETED = re.compile(rf"(?<![\w\]])\[ ?{_NUMBER} ?\](?P<ends>[.!]?$)?", re.IGNORECASE | re.MULTILINE)
# A line that is a number and nothing else; the first number of a reply, set off from what follows.
_ALONE = re.compile(
    rf"(?:- )?[^\w\n.{_CUT}+-]{{0,20}}(?:(?:about|around|approximately) )?{_NUMBER}[^\w\n?%]{{0,20}}", re.IGNORECASE
)
_OPENING = re.compile(
    rf"[^\w.+-]{{0,20}}{_NUMBER}(?=['\"*)\]>]{{0,4}}"
    r"(?:[.,;:!]+\s|[\n—…]| [(—]| - | (?:because|since|as|given|due|is my)\b))",
    re.IGNORECASE,
)
# The rest of a sentence, where it is not too long; in it, the result of a sum.
_SENTENCE = re.compile(r"(?:[^.!?\n]|[.!?](?=\S)){0,200}(?=[.!?\n]|\Z)")
_RESULT = re.compile(
    rf"(?:[=≈→]|\b(?:which|that|this) (?:is|gives|equals|yields)\b)[ \"'(]{{0,3}}(?:about |around )?{_NUMBER}",
    re.IGNORECASE,
)
_NOT_CHOSEN = re.compile(
    r"(?:\b(?:if|suppose|supposing|assum(?:e|ing)|when|whether|unless|should|could|would|can|do|not|never)|n't) \Z",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\bif\b(?:[^.;!?\n]|\.[0-9])*\Z", re.IGNORECASE)
"""Before a statement in "would" or "I'd"."""
_NO_CHOICE_AFTER = re.compile(
    r" ?(?:[×÷^·‰]|[%:][0-9]|%|[x*]{1,2} ?[0-9]|[x*]\(|/ ?[\w(]|\+ ?[0-9(])| [x*-] ?[0-9(]"
    r"| (?:times|percent|multiplied|divided|out of|of|plus|minus|if|assuming|more|less)\b|[个名位轮次]"
    r"| (?:in )?(?:the )?(?:last|previous) round\b"
    r"| (?:other )?(?:player|participant|people|person|round|other|number|digit|decimal|point|step|level|turn|time"
    r"|second|minute|hour|day|year)s?\b"
    r"| (?:is|was|will be|would be|as) (?:likely )?(?:the|an?|their) (?:\w{1,20} ){0,2}(?:average|mean|median|target)\b"
    r"|['\"*)]{0,2} ?\?",
    re.IGNORECASE,
)
"""After a number: it is an operand, a count, a question, or said of something else."""
_DOUBT_AFTER = re.compile(
    r" ?(?:[,;/&|~→-]|or\b|and\b|to\b|through\b|vs\.?|到|或|和|、) ?(?:maybe |perhaps |possibly |even )?"
    rf"(?![0-9.]++ ?/)-?\.?[0-9{_CUT}]| \.?[0-9]|[.,]? ?{_CUT}|,? or (?:less|more|lower|higher|below|above|so)\b",
    re.IGNORECASE,
)
"""After a number: another one beside it, or the cut."""


# --- reading -----------------------------------------------------------------------------------------------


def _reading(value: float, rule: ReadingRule, low: float, high: float) -> Reading:
    if low <= value <= high:
        return Reading(value, Status.OK, rule)
    return Reading(math.nan, Status.UNPARSABLE if math.isnan(value) else Status.OUT_OF_RANGE)


def _plain(text: str) -> str:
    """The reply proper: without thinking, markup and list markers."""
    text = re.split(r"</think(?:ing)?>", text)[-1]
    if re.search(r"<think(?:ing)?>", text):
        return ""
    text = _RANGE.sub("", _MARKUP.sub("", text.translate(_TRANSLATED)))
    text = re.sub(r" ?\n[ \n]*", "\n", re.sub(r" {2,}", " ", text)).lstrip()
    numbers = [int(marker[1]) for marker in _LIST_MARKER.finditer(text)]
    # A single one is a number that happens to end a sentence: "33. That is ...".
    neighbours = zip([None, *numbers], numbers, [*numbers[1:], None], strict=False)
    in_list = (n == 1 or before == n - 1 or after == n + 1 for before, n, after in neighbours)
    return _LIST_MARKER.sub(lambda marker: "" if next(in_list) else marker[0], text)


def _stated(text: str, low: float, high: float) -> tuple[float, ReadingRule]:
    """The number stated, NaN where there is none or it is in doubt, and the rule that found it."""
    if fields := list(_JSON.finditer(text)):
        return _value(fields[-1], low, high), ReadingRule.JSON
    opening, stated = _OPENING.match(text), None
    for match in _STATEMENT.finditer(text):
        if match["retraction"]:
            opening = stated = None
        elif (value := _chosen(match, low, high)) is not None:
            stated = value, next(rule for rule in ReadingRule if match.groupdict().get(rule.name.lower()))
    first = None if opening is None else _beside(opening, low, high)
    if last := _ALONE.fullmatch(text.rstrip().rpartition("\n")[2]):
        value = _beside(last, low, high)
        return (value if stated or first in (None, value) else math.nan), ReadingRule.NUMBER_ALONE
    if stated:
        return stated
    if first is not None:
        return first, ReadingRule.NUMBER_ALONE
    if len(brackets := list(_BRACKETED.finditer(text))) == 1 and brackets[0]["ends"] is not None:
        return _value(brackets[0], low, high), ReadingRule.BOXED
    return math.nan, ReadingRule.NONE


def _chosen(match: re.Match[str], low: float, high: float) -> float | None:
    """The number of a statement, NaN where it is in doubt; None where nothing is stated."""
    text, end = match.string, match.end()
    before = text[max(0, match.start() - 100) : match.start()]
    if _NOT_CHOSEN.search(before) or (re.search(r"'d\b|\bwould\b", match[0]) and _CONDITION.search(before)):
        return None
    if not _NO_CHOICE_AFTER.match(text, end):
        return _beside(match, low, high)
    sentence = _SENTENCE.match(text, end)
    found = _RESULT.finditer(text, end, sentence.end()) if sentence else ()
    results = [result for result in found if not _NO_CHOICE_AFTER.match(text, result.end())]
    return _beside(results[-1], low, high) if results else None


def _beside(match: re.Match[str], low: float, high: float) -> float:
    """The number that a match ends on; NaN where another one or the cut is beside it."""
    return math.nan if _DOUBT_AFTER.match(match.string, match.end("digits")) else _value(match, low, high)


def _value(match: re.Match[str], low: float, high: float) -> float:
    """The value of a number as written; NaN where the notation leaves a doubt."""
    digits, start = match["digits"], match.start("digits")
    if low < 0 and match.string[max(0, start - 2) : start] == "- ":
        return math.nan
    if re.fullmatch(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?", digits):
        if digits.count(",") == 1 and max(abs(low), abs(high)) < 1000:
            return math.nan
        digits = digits.replace(",", "")
    elif digits.count(",") + digits.count(".") > 1:
        return math.nan
    value = float(digits.replace(",", "."))
    return -value if match["sign"] not in (None, "+") and value else value


def _ranges(least: int, most: int, decimals: int) -> list[str]:
    """Patterns for the whole numbers least..most, 0 <= least, with a point before the last `decimals` digits."""
    patterns = []
    for width in range(decimals + 1, max(len(str(most)), decimals + 1) + 1):
        shortest = 10 ** (width - 1) if width > decimals + 1 else 0
        first, last = max(least, shortest), min(most, 10**width - 1)
        if first <= last:
            patterns.append(_digits(f"{first:0{width}}", f"{last:0{width}}", decimals))
    return patterns


@cache
def _digits(first: str, last: str, decimals: int) -> str:
    """A pattern for all strings of digits from `first` to `last`, which are equally long; with the point."""
    if not first:
        return ""
    heads: dict[str, str] = {}  # the digits to begin with, by the pattern of what follows them
    for head in range(int(first[0]), int(last[0]) + 1):
        least = first[1:] if head == int(first[0]) else "0" * len(first[1:])
        most = last[1:] if head == int(last[0]) else "9" * len(last[1:])
        rest = _digits(least, most, decimals)
        heads[rest] = f"{heads.get(rest, '')}{head}"
    point = r"\." if len(first) == decimals else ""
    return f"{point}({'|'.join(f'[{digits}]{rest}' for rest, digits in heads.items())})"
