"""What a participant's reply says: text -> guess or none, with a status.

A reply is read by patterns, and only where it is clear; an unclear one is left to a second call of the model
(`prompts.EXTRACTION`), so a pattern that might misread is worth less here than one that gives up. In order:

1. *Statements*, of which the last wins, since people correct themselves: a number led in by the speaker's own
   words ("My number: 22", "I'll go with 18", "\\boxed{33}", `{"guess": 33}`, "我选择22"), one claimed right after
   ("33 is my choice"), or one alone on the last line. Where the words lead into a sum ("I pick 2/3 of 50 = 33.3")
   its result counts. "Wait" and the like take back what was said before.
2. Without a statement, an *opening* number: alone on the first line, or set off ("33, because ...").
3. Without either, an *implied* one: the number a reply ends on, if something leads up to it ("2/3 of 50 = 33.3"),
   or the only one left, in the last sentence. Numbers that belong to the reasoning are not left: fractions and
   other operands, percentages, ranges, counts, list markers, rounds and levels, what others pick or averages are.

Several numbers side by side ("20 or 30") are a doubt, not a choice. A minus sign is never dropped: a hyphen is one
where it touches the number and no word or number before it; a dash with a space after it is punctuation, and
a doubt where it could be a sign. A single comma is a decimal one ("33,5"); before exactly three digits ("1,000") it
separates thousands if the range reaches that far, and is a doubt otherwise. Number words count from zero to one
hundred, alone or right after the words that state a choice. Of a reply with a thinking block only the text
after the block counts. In a truncated reply nothing is implied, and a number at the cut may be half of one.

Every pattern looks at a bounded stretch of text per position, so reading takes time linear in the reply.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from pbeauty.game.rules import ReadingRule, Status


class Reading(NamedTuple):
    """What a reply came to."""

    guess: float
    """NaN unless the status is `OK`."""
    status: Status
    """`OK`, `OUT_OF_RANGE`, `UNPARSABLE` or `TRUNCATED`."""
    rule: ReadingRule = ReadingRule.NONE
    """Which rule read the guess."""


def read_guess(text: str, low: float, high: float, truncated: bool = False) -> Reading:
    """Reads the number that the author of a reply clearly chose; the rules are those of this module.

    Args:
        text: the reply.
        low: the smallest valid guess.
        high: the largest valid guess.
        truncated: whether the reply was cut at `max_tokens`.
    """
    if not truncated and _JUST_A_NUMBER.fullmatch(text):
        reading, rule = _reading(float(text), low, high, truncated), ReadingRule.NUMBER_ALONE
    else:
        reading = _reading(_chosen(_plain(text, truncated), low, high, truncated), low, high, truncated)
        rule = ReadingRule.OWN_WORDS
    return Reading(reading.guess, reading.status, rule if reading.status == Status.OK else ReadingRule.NONE)


def read_extraction(text: str, low: float, high: float) -> Reading:
    """Reads the reply to `prompts.EXTRACTION`: a number, or `none`.

    It speaks about somebody else ("The player picks 33"), so a number without any other beside it counts too.
    """
    plain = _plain(text, truncated=False)
    if re.match(r"\W*(?:none|null|n/a)\b", plain, re.IGNORECASE):
        return Reading(math.nan, Status.UNPARSABLE)
    reading = read_guess(text, low, high)
    numbers = list(_NUMBER.finditer(plain))
    if reading.status != Status.UNPARSABLE or len(numbers) != 1 or _unusable(plain, numbers[0]):
        return reading
    return _reading(_value(plain, numbers[0], low, high), low, high, truncated=False)


# --- tables ------------------------------------------------------------------------------------------------

_JUST_A_NUMBER = re.compile(r"\s{0,9}-?[0-9]{1,9}(?:\.[0-9]{1,9})?\s{0,9}")
"""What most direct replies are: nothing to weigh. (`1,000` and the like are weighed.)"""
_CUT = "\ue000"  # stands at the end of a truncated reply: whatever might have come next
_TRANSLATED = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},  # full-width forms of ASCII
    **dict.fromkeys([*range(32), 127], " "),
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\xad$" + _CUT)),  # invisible, or markup
    **dict.fromkeys(map(ord, "−–‐‑‒﹣－"), "-"),
    **dict.fromkeys(map(ord, "“”„«»"), '"'),
    **dict.fromkeys(map(ord, "‘’`´"), "'"),
    **dict.fromkeys(map(ord, "⇒➜⟶"), "→"),
    ord("\n"): "\n",
}
_REWRITTEN = [
    (re.compile(r"\\[dt]?frac ?(?:\{([^{}]{1,40})\} ?\{([^{}]{1,40})\}|([0-9])([0-9]))"), r"\1\3/\2\4"),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), "×"),
    (re.compile(r"\\(?:approx|simeq|sim)(?![a-z])"), "≈"),
    (re.compile(r"\\(?:text|math)[a-z]{0,6}|\\(?:left|right|quad|displaystyle)(?![a-z])|\\(?![a-z])"), ""),
    (re.compile(r"(?<=[0-9])\*\*(?=[0-9])"), "^"),
    (re.compile(r"\*\*|__|\\|\b_|_\b"), ""),
    (re.compile(r"_"), " "),
    (re.compile(r"[-=]>"), "→"),
    (re.compile(r" ?[(\[](?:between |from )?-?[0-9.]{1,12} ?(?:-|to|and|,) ?-?[0-9.]{1,12}[)\]]"), ""),  # the range
    (re.compile(r"[^\S\n]+"), " "),
    (re.compile(r" ?\n[ \n]*"), "\n"),
]
"""Markup, LaTeX and white space, so that the other patterns need not know them."""

# Repeated groups that give nothing back are written (?>...): before Python 3.11.5 `*+` after a group could fail where
# it should match (python/cpython#106052).
_NUMBER = re.compile(
    r"""(?<![A-Za-z0-9_]) (?<![0-9][.,])                        # not inside a word or a longer number
    (?P<sign> (?<![\w.)\]%])[-+](?=[0-9.]) | (?<=[^\x00-\x7f])[-+](?=[0-9.]) | -[ ](?=[0-9.])
            | (?<![A-Za-z])(?:minus|negative)[ ] )?
    (?P<digits> (?>[0-9]+(?:[.,][0-9]+)*) | (?<![\w.])\.[0-9]++ )  # "1.2.3" and "1,2,3" whole: see `_value`
    (?>(?P<exponent> [eE][-+]?[0-9]+ )?) (?![A-Za-z_])""",
    re.VERBOSE | re.IGNORECASE,
)

_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
_WORDS = {name: float(i if i < 20 else 10 * (i - 18)) for i, name in enumerate(_NAMES.split())}
_WORDS |= {f"{ten} {one}": _WORDS[ten] + _WORDS[one] for ten in _NAMES.split()[20:] for one in _NAMES.split()[1:10]}
_WORDS |= {"hundred": 100.0, "a hundred": 100.0, "one hundred": 100.0, "infinity": math.inf, "inf": math.inf}
_WORD = re.compile(r"(minus |negative )?((?:an? )?[a-z]{2,9}(?:[- ][a-z]{3,7})?)(?![A-Za-z-])", re.IGNORECASE)
_CLAUSE_END = re.compile(r"[ '\"*}\])]{0,4}(?:[.!,;:(\n—]|$)| (?:because|since|as)\b")

_NOUN = r"(?:number|guess|choice|pick|answer|selection|submission|bid|entry|decision)\b"
_ADJECTIVE = r"(?:final|chosen|own|best|optimal|new|next|current|actual|first|strategic|updated|revised|guessed)"
_VERB = (
    r"(?:choos(?:e|ing)|chosen|pick(?:ing|ed)?|select(?:ing|ed)?|guess(?:ing)?|(?:go|going|gone) (?:with|for)"
    r"|opt(?:ing)? for|sett?l(?:e|ed|ing) (?:on|for|with)|decided? on|submit(?:ting)?|bid(?:ding)?|bet(?: on)?|say"
    r"|play(?:ing)?|enter|answer|(?:stick|stay)(?:ing)? (?:with|at|to)|name|take|aim(?:ing)? for)\b"
)
_FILLER = (
    r"(?:will|would|shall|should|must|am|are|be|going|gonna|to|like|want|have|decided?|rather|therefore|thus|then"
    r"|now|just|also|still|again|hence|[a-z]{2,14}ly)"
)
_SPEAKER = rf"\b(?:I|we|let me|let us|let's)(?:'(?:ll|d|m|ve|re))?(?: {_FILLER}){{0,4}} {_VERB}"
_WHEN = r"(?:,? (?:for|in|of) (?:this|the|my)?(?: ?[a-z]{4,7})? ?(?:round|game|time)(?: [0-9]+)?)?"
_COPULA = r"\"? ?(?:[:=→≈—]|(?:is|would be|will be|should be)\b)"
_CUE = re.compile(
    "|".join(
        [
            # A number that is not the speaker's, or not a choice yet: passed over.
            r"(?P<other>\bif\b(?:[^.;!?\n]|\.(?=[0-9])){0,100}?\bI(?:'d| would)\b|\bI (?:picked|selected)\b"
            r"|\b(?:if|suppose|assum(?:e|ing)|when|whether|unless|should|could|would|can|do)"
            rf" (?:I|we|my|our|the)\b(?: {_NOUN})?"
            r"|\b(?:average|mean|median|winning|target|their|others?'?|expected|last|previous|typical|random|highest"
            rf"|lowest|maximum|minimum|players?'?|likely|common|popular)(?:'?s)? (?:{_ADJECTIVE} )?{_NOUN}"
            r"|(?:平均|目标|他们|别人|其他|大家)[^,。;\n0-9]{0,12}?(?:是|为|:|选择?|猜))",
            r"(?P<retraction>\b(?:wait|on second thoughts?|let me re(?:consider|think)|scratch that|correction"
            r"|changed? my mind|actually,)|更正)",
            r"(?P<choice>"
            # I choose 22; I'll go with 22; let's say 22; I have decided on 22
            rf"{_SPEAKER}"
            # So pick 22; Guess 22
            rf"|(?:^|(?<=[.!?\n])|(?<=[.!?] )|\b(?:so|thus|therefore|hence),? )(?:just |simply )?{_VERB}"
            # My number: 22; my final guess for this round is 22; Final answer 22
            rf"|\b(?:my|our|final)(?: {_ADJECTIVE}){{0,2}} {_NOUN}{_WHEN}(?:{_COPULA})?"
            # Answer = 22; number is 22; the number I choose is 22; {"guess": 22}
            rf"|\b{_NOUN}(?: {_SPEAKER})?{_WHEN}{_COPULA}"
            # \boxed{22}; <answer>22</answer>
            r"|\bboxed ?\{|<(?:number|guess|choice|answer)>"
            r"|我[会将要就还是最终后决定想打算应该]{0,8}(?:选择?|猜测?|给出|提交|填|报)"
            r"|(?:数字|答案|选择|猜测)(?:应该)?(?:是|为|[:=]))",
        ]
    ),
    re.IGNORECASE,
)
_BETWEEN = re.compile(
    r"(?>(?:[ \n:=\"'(\[{<>}*_|#≈~→—]|(?:about|around|approximately|approx\.?|roughly|exactly|precisely|simply|just"
    r"|somewhere|something|an?|the|my|our|final|number|guess|value|integer|choice|answer|pick|of|like|as|at|be|is)\b"
    r"|数字|大约|大概|约|是|为|了|一个){0,24})",
    re.IGNORECASE,
)
"""What may stand between the words that lead in a choice and its number."""

_CLAIM = re.compile(
    rf" ?['\"*)]{{0,3}},? ?(?:(?:is|will be|would be|as|being) (?:my|our|the final)(?: {_ADJECTIVE})? {_NOUN}"
    rf"|it is\b(?! [a-z])|\(my {_NOUN}|is (?:what|the {_NOUN}) (?:that )?{_SPEAKER})",
    re.IGNORECASE,
)
"""After a number: 33 is my choice; 33 it is."""

_AVERAGES = r"(?:average|mean|median|midpoint|middle|target)"
_JOINED = (
    r"(?:[,;/&|~→-]|or\b|and\b|to\b|through\b|vs\.?|到|至|或|和|、) ?(?:maybe |perhaps |possibly |even |or |and )?"
)
_REASONING_AFTER = re.compile(
    r" ?(?:[×÷^·%‰²³½⅓⅔¼¾⁰-⁹]|[x*] ?[0-9]|[x*]\(|/ ?[\w(]|\+ ?[0-9(])| [x*-] ?[0-9(]"
    r"| (?:times|percent|multiplied|divided|out of|of|plus|minus|if|assuming)\b"
    r"|['\"*)]{0,2} ?\?"  # asked, not stated
    r"| (?:in )?(?:the )?(?:last|previous) round\b"
    r"| (?:other |more )?(?:players?|participants?|people|persons?|rounds?|others|numbers|steps?|levels?)\b"
    r"|[个名位]?(?:人|玩家|参与者|轮|次)"
    rf"| (?:is|was|will be|would be|being|as) (?:likely )?(?:the|an?|their) (?:\w{{1,20}} ){{0,2}}{_AVERAGES}\b",
    re.IGNORECASE,
)
_DOUBT_AFTER = re.compile(
    rf" ?\(?{_JOINED}(?![0-9.]++ ?/)-?\.?[0-9{_CUT}]| \.?[0-9]|[.,]? ?{_CUT}"  # 20 or 30; 33 1/3; cut off
    r"| or (?:less|more|lower|higher|below|above|under)\b",
    re.IGNORECASE,
)
_REASONING_BEFORE = re.compile(
    rf"(?:[×÷+/^·≤≥-]|[0-9)] ?[*x]|(?:[0-9%]|thirds?|half|quarter|percent) of|[0-9]|[0-9] ?{_JOINED}"
    r"|\b(?:times|by|the|between|from|up to|least|most|minimum|maximum|than|below|above|under|over|not|instead of"
    r"|out of|minus|negative)"
    r"|\blevel[- ]?[0-9k][^.\n]{0,30}|\b(?:round|level|step|stage|iteration|player) ?#?|第|\b[knp] ?=) ?$",
    re.IGNORECASE,
)
_CLAUSE_START = re.compile(r".*(?:[.;!?\n0-9=≈。]|\b(?:so|therefore|thus|hence|I|my)\b)", re.IGNORECASE | re.DOTALL)
_OTHERS = re.compile(
    rf"\b(?:{_AVERAGES}|others?|everyone|everybody|people|players?|participants|they|most|many|some|level|if"
    r"|random(?:ly)?|was|were|might|could|may|can|not|never|maybe|perhaps)\b|n't\b|平均|其他|别人|他们|大家|目标",
    re.IGNORECASE,
)
_LEADS_IN = re.compile(
    r"(?:[=≈→~:—]|\b(?:is|be|equals?|gives?|giving|yields?|gets?|makes|about|around|approximately|roughly|so|to|or|say"
    r"|at|near|number)\b|[是为得约])[^\w\n]{0,4}$",
    re.IGNORECASE,
)
_OPENS = re.compile(r"[ '\"*)\]}>]{0,4}(?:[.,;:!(\n—]|$)| - | (?:because|since|as|given|due|based)\b", re.IGNORECASE)
_LIST_MARKER = re.compile(r"(?m)^[ #>*-]{0,8}([0-9]{1,3})[.)](?: (?=\S)|(?=[^\s0-9]))")


# --- reading -----------------------------------------------------------------------------------------------


def _reading(value: float | None, low: float, high: float, truncated: bool) -> Reading:
    if value is None or math.isnan(value):
        return Reading(math.nan, Status.TRUNCATED if truncated else Status.UNPARSABLE)
    if low <= value <= high:
        return Reading(value, Status.OK)
    return Reading(math.nan, Status.OUT_OF_RANGE)


def _plain(text: str, truncated: bool) -> str:
    """The reply proper: without thinking, markup and list markers; truncated, with a mark where it was cut."""
    text = re.split(r"</think(?:ing)?>", text)[-1]
    if re.search(r"<think(?:ing)?>", text):
        text = ""
    text = text.translate(_TRANSLATED)
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    count = 0

    def without_marker(match: re.Match[str]) -> str:
        nonlocal count
        if int(match[1]) not in (1, count + 1):  # a number that happens to end a sentence: "33. That is ..."
            return match[0]
        count = int(match[1])
        return ""

    text = _LIST_MARKER.sub(without_marker, text).lstrip()
    return text + _CUT if truncated else text


def _chosen(text: str, low: float, high: float, truncated: bool) -> float | None:
    """The number chosen; NaN where it is in doubt, None where there is none."""
    word = _word(text.strip(" \n.!*_\"'()[]{}<>#"), 0, alone=True)
    if word is not None:
        return word
    numbers = list(_NUMBER.finditer(text))
    first, stated = _opening(text, numbers, low, high), None
    stated_at = unspoken_from = 0  # where the last statement is; where the text begins that no cue precedes
    for cue in reversed([cue for cue in _CUE.finditer(text) if cue.lastgroup != "other"]):
        unspoken_from = max(unspoken_from, cue.end())
        if cue.lastgroup == "retraction":
            first, stated_at = None, cue.end()
            break
        stated = _led_in(text, cue.end(), low, high)
        if stated is not None:
            stated_at = cue.end()
            break
    for number in reversed(numbers):
        if number.start() < stated_at:
            break
        if _CLAIM.match(text, number.end()):
            stated = _value(text, number, low, high) if not _reasoning_before(text, number) else math.nan
            break
    last = _last_line(text, low, high)
    if last is not None:
        return last if stated is not None or first in (None, last) else math.nan
    if stated is not None:
        return stated
    if first is not None:
        return first
    return None if truncated else _implied(text, numbers, unspoken_from, low, high)


def _led_in(text: str, start: int, low: float, high: float) -> float | None:
    """The number that the words before `start` lead in; None where no number follows."""
    between = _BETWEEN.match(text, start)
    at = between.end() if between else start
    number = _NUMBER.match(text, at)
    if number is None:
        return _word(text, at, alone=False)
    if not _REASONING_AFTER.match(text, number.end()):
        return math.nan if _DOUBT_AFTER.match(text, number.end()) else _value(text, number, low, high)
    result = None
    stop = re.compile(r"[.!?。](?=\s)|\n").search(text, at, at + 200)
    limit = stop.start() if stop else at + 200
    for number in _NUMBER.finditer(text, at):
        if number.start() > limit:
            break
        if _LEADS_IN.search(text[max(0, number.start() - 40) : number.start()]) and _candidate(text, number):
            result = _value(text, number, low, high)
    return result


def _implied(text: str, numbers: list[re.Match[str]], start: int, low: float, high: float) -> float | None:
    left = [number for number in numbers if number.start() >= start and _candidate(text, number)]
    if not left:
        return None
    last = left[-1]
    rest = text[last.end() :]
    only = len({_value(text, number, low, high) for number in left}) == 1
    ends = not re.search(r"\w", rest) and _LEADS_IN.search(text[max(0, last.start() - 40) : last.start()])
    if ends or (only and not re.search(r"[.!?。\n][^\w]{0,9}\w", rest)):
        return _value(text, last, low, high)
    return None


def _opening(text: str, numbers: list[re.Match[str]], low: float, high: float) -> float | None:
    """The number that the reply begins with, if it is set off from what follows."""
    if not numbers or re.search(r"\w", text[: numbers[0].start()]) or not _OPENS.match(text, numbers[0].end()):
        return None
    return math.nan if _unusable(text, numbers[0]) else _value(text, numbers[0], low, high)


def _last_line(text: str, low: float, high: float) -> float | None:
    """The number that stands alone on the last line."""
    start = text.rstrip().rfind("\n") + 1
    number = _NUMBER.search(text, start)
    if number is None or re.search(r"\w", text[start : number.start()] + text[number.end() :]):
        return None
    unclear = _unusable(text, number) or _reasoning_before(text, number)
    return math.nan if unclear else _value(text, number, low, high)


def _candidate(text: str, number: re.Match[str]) -> bool:
    """Whether an unannounced number may be a choice, rather than part of the reasoning."""
    if _unusable(text, number) or _reasoning_before(text, number):
        return False
    before = text[max(0, number.start() - 60) : number.start()]
    if len(number["sign"] or "") > 1 and re.search(r"\w[^\n]*$", before):  # "target - 5", "fifty minus 5"
        return False
    return not _OTHERS.search(_CLAUSE_START.sub("", before, count=1))


def _unusable(text: str, number: re.Match[str]) -> bool:
    return bool(_REASONING_AFTER.match(text, number.end()) or _DOUBT_AFTER.match(text, number.end()))


def _reasoning_before(text: str, number: re.Match[str]) -> bool:
    before = text[max(0, number.start() - 40) : number.start()]
    return bool(_REASONING_BEFORE.search(before.rpartition("\n")[2]))


def _value(text: str, number: re.Match[str], low: float, high: float) -> float:
    """The value of a number as written; NaN where the notation leaves a doubt."""
    sign, digits = (number["sign"] or "").lower(), number["digits"]
    if sign == "- " and (low < 0 or text[max(0, number.start() - 2) : number.start()].rstrip(" ")[-1:] in (":", "=")):
        return math.nan
    if re.fullmatch(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?", digits):
        if digits.count(",") == 1 and max(abs(low), abs(high)) < 1000:
            return math.nan
        digits = digits.replace(",", "")
    elif digits.count(",") + digits.count(".") > 1:
        return math.nan
    value = float(digits.replace(",", ".") + (number["exponent"] or ""))
    return -value if sign in ("-", "minus ", "negative ") and value else value


def _word(text: str, start: int, alone: bool) -> float | None:
    """The value of the number word at `start`: all of the text, or all of a clause."""
    word = _WORD.match(text, start)
    if word is None or not (word.end() == len(text) if alone else _CLAUSE_END.match(text, word.end())):
        return None
    name = word[2].lower().replace("-", " ")
    if name == "one" and not alone:  # the pronoun: "I pick one, as low as possible"
        return None
    value = _WORDS.get(name)
    return -value if word[1] and value else value
