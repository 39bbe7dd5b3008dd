"""The tables about runs, as text: `pbeauty analyze` prints them, and `pbeauty report` puts them into its page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pbeauty.analysis.comparison import Contrast
from pbeauty.analysis.findings import Examined, Findings
from pbeauty.analysis.group_stats import GroupStats, Readings
from pbeauty.analysis.hierarchy import LARGEST_TAU
from pbeauty.analysis.intervals import Bounds, Difference, Estimate
from pbeauty.analysis.levels import LABELS
from pbeauty.game.announcement import announced_in_words
from pbeauty.game.population import in_words

_LEVELS = [label.removeprefix("level ") for label in LABELS]
_SEVERAL = " within sessions. across: of the sessions' means. targets: from the least to the greatest"
_TESTED = ("difference", "equivalent within", "p (Holm)")
_TESTED_NOTE = (
    "equivalent within: the smallest margin within which two one-sided tests at 5 % call the means equivalent. p: of "
    "no difference, adjusted for all rows here. not identified: the unusable replies could turn the sign."
)


@dataclass(frozen=True)
class Table:
    """A table as text. Names in it may be other people's words: whoever shows it must make them harmless."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    """What its columns mean."""


# --- one run -------------------------------------------------------------------------------------------------


def headline(one: Examined) -> list[str]:
    """What was played, and how many replies were of no use."""
    analysis, game, experiment = one.analysis, one.analysis.game, one.analysis.experiment
    offset = f"{game.offset:g} + " if game.offset else ""
    players = ", ".join(f"{g.name} ({g.count:,} {g.kind})" for g in experiment.population[:6])
    more = len(experiment.population) - 6
    who = in_words(analysis.sessions, experiment.session_size)
    lines = [
        f"{analysis.name}, seed {experiment.seed}: {who}: {players}" + (f" and {more} groups more" if more > 0 else ""),
        f"guesses from {game.low:g} to {game.high:g}, target {offset}{game.multiplier} x {game.aggregate}"
        + (", groups play" if game.players == "groups" else "")
        + (f", all within {game.tolerance:g} win" if game.tolerance is not None else "")
        + f"; equilibrium {short(analysis.equilibrium)}; announced: {announced_in_words(experiment)}",
        f"{analysis.rounds} of {game.rounds} rounds; in brackets: {100 * analysis.confidence:g} % intervals"
        + (", over sessions" if analysis.sessions > 1 else ""),
    ]
    bad = [cell.n - cell.n_valid for cell in analysis.of()]
    if sum(bad):
        asked = sum(cell.n for cell in analysis.of())
        worst = max(analysis.of(), key=lambda cell: cell.unusable.value)
        lines.append(
            f"UNUSABLE REPLIES: {sum(bad):,} of {asked:,} ({percent(sum(bad) / asked)} %); most in round "
            f"{worst.round}: {percent(worst.unusable.value)} %"
        )
    return lines if sum(bad) or not bad else [*lines, "unusable replies: none"]


def summary(one: Examined) -> list[Table]:
    """The few tables that say how a run went."""
    cells = one.analysis.of()
    several = one.analysis.sessions > 1
    rounds = Table(
        "Guesses by round",
        ("round", "valid", "mean", "SD", *(("across", "targets") if several else ("median", "target")), "tau"),
        [(str(c.round), f"{c.n_valid:,}", estimate(c.mean), short(c.sd.value),
          *((short(c.sd_of_means), limits(c.targets)) if several else (short(c.median), short(c.target))), tau(c.tau))
         for c in cells],
        f"valid: guesses that count. SD: standard deviation{_SEVERAL if several else ''}. tau: steps of reasoning in "
        f"the cognitive hierarchy, by the mean; >{LARGEST_TAU:g}: one more is not told apart; <0: no tau predicts it.",
    )  # fmt: skip
    levelled = [cell for cell in cells if cell.levels]
    levels = Table(
        "Levels of reasoning, % of valid guesses",
        ("round", *_LEVELS),
        [(str(c.round), *(percent(share.value) for share in c.levels.values())) for c in levelled],
        "0 to 3: so many best responses away from the reference, in round 1 the middle of the range, later the last "
        "mean where it is announced; to a quarter step in round 1, with interim guesses between two (Nagel 1995), to "
        "half a step later. deeper: past 3. equilibrium: to 1 % of the range. outside: on the other side of the "
        "reference, or past the equilibrium.",
    )
    near = one.within.counts if one.within else []
    within = Table(
        f"Guesses within {one.within.distance if one.within else 0:g} of the target, whoever won",
        ("round", *(near[0] if near else ())),
        [(str(number), *(f"{count:,}" for count in counts.values())) for number, counts in enumerate(near, start=1)],
    )
    groups = [_groups(one, by) for by in one.analysis.ways]
    return _shown([rounds, within, levels, _unusable(cells), _readings(one.analysis.readings), *groups])


def run_tables(one: Examined) -> list[Table]:
    """All that is told of one run; tables without a row are left out."""
    cells, unit = one.analysis.of(), "session" if one.analysis.sessions > 1 else "participant"
    slopes = [o for o in one.analysis.over_rounds if not math.isnan(o.trend.value)]
    details = Table(
        "More by round",
        ("round", "min", "lower quartile", "median", "upper quartile", "max", "mode", "at mode (%)", "winners",
         "convergence"),
        [(str(c.round), *map(short, (c.min, c.lower_quartile, c.median, c.upper_quartile, c.max, c.mode)),
          percent(c.mode_share), "-" if c.n_winners is None else f"{c.n_winners:,}", short(c.convergence))
         for c in cells if c.n_valid],
        "mode: the most frequent guess, rounded to a hundredth of the range; at mode: its share. winners: players with "
        "the nearest guess, or within the tolerance. convergence: distance of the mean to the equilibrium over that of "
        "the round before.",
    )  # fmt: skip
    trends = Table(
        "Trend over rounds",
        ("by", "who", "mean over rounds", "change per round"),
        [(o.by, o.label, estimate(o.average), estimate(o.trend)) for o in slopes],
        f"mean over rounds: of the rounds' means. change per round: their slope. Intervals: clustered by {unit}.",
    )
    moves = Table(
        "From level to level in the next round, participants, from round 2 on",
        ("from", *_LEVELS),
        [(label, *(f"{n:,}" if n else "-" for n in row.values())) for label, row in one.analysis.transitions.items()],
        "rows: the level in one round; columns: in the next, of those who guess in both.",
    )
    ends = [cells[0], cells[-1]] if len(cells) > 1 else cells
    exact = Table(
        "Levels of reasoning with intervals, % of valid guesses",
        ("level", *(f"round {c.round}" for c in ends)),
        [(name, *(share(c.levels[name]) for c in ends)) for name in LABELS if all(c.levels for c in ends)],
        "level: as above.",
    )
    pairs = [_pairs(by, [c for c in one.contrasts if c.by == by], unit) for by in one.analysis.ways]
    return summary(one) + _shown([_sessions(one), details, exact, trends, moves, *pairs, *_published(one)])


def _sessions(one: Examined) -> Table:
    """The first sessions; no row of a run of one."""
    rounds = [(c.round, c.by_session) for c in one.analysis.of() if c.by_session]
    shown = rounds[:7] + rounds[7:][-1:]
    rows = []
    for index in range(min(one.analysis.sessions, 20) if one.analysis.sessions > 1 and rounds else 0):
        missing = sum(of.n[index] - of.n_valid[index] for _, of in rounds)
        rows.append((str(index + 1), f"{missing:,}", *(short(of.mean[index]) for _, of in shown)))
    more = one.analysis.sessions - len(rows)
    note = "unusable: replies in all rounds." + (f" {more:,} sessions more: --json has them." if more else "")
    return Table("Sessions, mean guess", ("session", "unusable", *(f"round {n}" for n, _ in shown)), rows, note)


def _groups(one: Examined, by: str) -> Table:
    cells = one.analysis.of(by)
    rounds = sorted({1, one.analysis.rounds})
    of = {(cell.label, cell.round): cell for cell in cells}
    rows = []
    for label in dict.fromkeys(cell.label for cell in cells):
        mine = one.analysis.of(by, label)
        unusable = 1 - sum(cell.n_valid for cell in mine) / sum(cell.n for cell in mine)
        rows.append((label, f"{mine[0].n:,}", percent(unusable), *(estimate(of[label, r].mean) for r in rounds)))
    headings = (by, "n", "unusable (%)", *(f"mean, round {r}" for r in rounds))
    return Table(f"By {by}", headings, rows, "n: participants. unusable: replies without a valid guess, in all rounds.")


def _pairs(by: str, found: Sequence[Contrast], unit: str) -> Table:
    rows = [(f"{c.first} less {c.second}", c.rounds, *tested(c.difference)) for c in found]
    last = ", the last" if unit == "session" else ""
    note = f"rounds: the first{last}, and the mean over all, clustered by {unit}. {_TESTED_NOTE}"
    return Table(f"Difference of means by {by}", ("who", "rounds", *_TESTED), rows, note)


def _unusable(cells: Sequence[GroupStats]) -> Table:
    bad = [cell for cell in cells if cell.n_valid < cell.n]
    names = [name for name in (bad[0].statuses if bad else ()) if any(c.statuses[name].value for c in bad)]
    return Table(
        "Unusable replies, and what became of all, % of participants",
        ("round", "unusable", "mean could be", *names),
        [(str(c.round), share(c.unusable), limits(c.bounds), *(percent(c.statuses[name].value) for name in names))
         for c in bad],
        "mean could be: had all unusable replies been at one end of the range. ok, extracted, retried: guesses count.",
    )  # fmt: skip


def _readings(found: Sequence[Readings]) -> Table:
    rules = [rule for rule in (found[0].shares if found else ()) if any(one.shares[rule] for one in found)]
    return Table(
        "How replies were read, % of models' guesses",
        ("round", *rules, "mean", "mean, strict"),
        [(str(r.round), *(percent(r.shares[rule]) for rule in rules), short(r.mean),
          "-" if r.strict.value == r.mean else estimate(r.strict)) for r in found],
        "mean, strict: without own words and extraction, which leave something to interpret.",
    )  # fmt: skip


_MODELS_NOTE = (
    "Each study asked in its own words, and this run in those of its prompts: where they differ, a mean beside theirs "
    "is no replication to the word. Numbers of replies are unpublished, so that there are no intervals."
)


def _published(one: Examined) -> list[Table]:
    titles = {
        "people": ("People, first round", f"n: participants. tau: theirs, as published. {_TESTED_NOTE}"),
        "people by round": ("People, by round", "n: sessions. their mean: and where that of another is expected."),
        "language model": ("Language models", _MODELS_NOTE),
    }
    tables = []
    for what, (title, note) in titles.items():
        found = [c for c in one.comparisons if c.what == what]
        rows = [
            (c.reference + " (as here)" * c.same, "-" if what == "people" else str(c.round), f"{c.n:,}" if c.n else "-",
             estimate(c.theirs) if what == "people by round" else short(c.theirs.value),
             "-" if c.tau is None else f"{c.tau:.1f}", *tested(c.difference))
            for c in found
        ]  # fmt: skip
        headings = ("who", "round", "n", "their mean", "tau", "ours less theirs", *_TESTED[1:])
        sources = "; ".join(dict.fromkeys(c.source.marked for c in found))
        tables.append(Table(title, headings, rows, f"{note} From: {sources}."))
    return tables


# --- several runs --------------------------------------------------------------------------------------------


def sweep_summary(findings: Findings) -> list[Table]:
    """The cases beside each other, and what the probes for a memorised answer say."""
    if (variation := findings.variation) is None:
        return []
    last = max((one.round for one in variation.stats), default=1)
    ends = sorted({1, last})
    of = {(one.case, one.round): one for one in variation.stats}
    mean = {key: estimate(one.mean) for key, one in of.items()}
    named, names = variation.keys, {case.label: case.short for case in variation.cases}
    cases = Table(
        "Cases",
        (named, "sessions", "unusable (%)", *(f"mean, round {number}" for number in ends)),
        [(names[case], str(first.sessions), percent(first.unusable), *(mean.get((case, r), "-") for r in ends))
         for case in names if (first := of.get((case, 1)))],
        "sessions: independent ones, of one run or of several. Intervals are over sessions; of a single one, over its "
        "participants, and in the first round only. unusable: replies of the first round.",
    )  # fmt: skip
    less = Table(
        f"Each case less the first, {variation.cases[0].short}",
        (named, "round", *_TESTED),
        [(names[one.case], str(one.round), *tested(one.difference))
         for one in variation.stats if one.difference],
        f"difference: by session where both have the same seeds and sessions, which share draws. {_TESTED_NOTE}",
    )  # fmt: skip
    compared = {one.analysis.path: [c for c in one.comparisons if c.same] for one in findings.examined}
    published = Table(
        "Beside the same model and prompt, as published",
        (named, "round", "our mean", "theirs", "ours less theirs"),
        [(case.short, str(c.round), estimate(analysis.of()[c.round - 1].mean), short(c.theirs.value),
          short(c.difference.estimate.value))
         for case in variation.cases for analysis in case.analyses for c in compared[analysis.path]],
        f"{_MODELS_NOTE} From: Pan et al. 2024.",
    )  # fmt: skip
    return _shown([cases, less, published, _probes(findings, named, names)])


def _probes(findings: Findings, named: str, names: dict[str, str]) -> Table:
    return Table(
        "Probes for a memorised answer, first guesses",
        (named, "valid", "textbook (%)", "own (%)", "p recited", "distance", "p (Holm)"),
        [(names[row.case], f"{row.n:,}", share(row.textbook), percent(row.own.value),
          p_value(row.p_recited), short(row.distance), p_value(row.p_holm)) for row in findings.probes],
        "valid: guesses. textbook: near 33.3 or 22.2, the answers at p = 2/3. own: near the same for the p that is "
        "played. p recited: of the textbook's being no more frequent. distance: Kolmogorov-Smirnov, from the first. "
        "p: of none, by permutation.",
    )  # fmt: skip


def sweep_tables(findings: Findings) -> list[Table]:
    """All that is told of several runs together; nothing of a single one."""
    if (variation := findings.variation) is None:
        return []
    names = {case.label: case.short for case in variation.cases}
    more = Table(
        "More by case and round",
        ("case", "round", "sessions", "mean", "mean could be", "tau"),
        [(names[one.case], str(one.round), str(one.sessions), estimate(one.mean), limits(one.bounds), tau(one.tau))
         for one in variation.stats],
        "mean could be: had all unusable replies been at one end of the range. tau: by the sessions' means.",
    )  # fmt: skip
    components = Table(
        "How much sessions vary: standard deviations, pooled over cases",
        ("round", "sessions", "guesses", "session means", "between sessions", "by participants"),
        [(str(c.round), str(c.sessions), short(c.guesses), short(c.observed), estimate(c.between), short(c.sampling))
         for c in variation.components],
        "guesses: within a session. session means: within a case. between sessions: beyond what different participants "
        "make of them. by participants: what these make of them.",
    )  # fmt: skip
    effects = Table(
        "What the variance of session means goes with",
        ("key", "round", "share (%)", "p (Holm)"),
        [(e.key, str(e.round), share(e.share), p_value(e.p_holm)) for e in variation.effects],
        "share: partial omega squared, of what is left when all other keys are accounted for; -: not to be told from "
        "another key.",
    )
    wordings = Table(
        "Wordings as a sample of all there might be",
        ("other settings", "round", "wordings", "between wordings", "less the first", "p (Holm)"),
        [(w.case, str(w.round), str(w.wordings), estimate(w.between),
          *((estimate(w.difference.estimate), p_value(w.difference.p_holm)) if w.difference else ("-", "-")))
         for w in variation.wordings],
        "between wordings: standard deviation of their means, beyond what sessions make of them. less the first: by "
        "the differences within each wording, so that it holds for other wordings.",
    )  # fmt: skip
    return sweep_summary(findings) + _shown([more, components, effects, wordings])


def power_table(findings: Findings) -> list[Table]:
    """The plan of an experiment, if one was asked for."""
    rows = [
        (str(one.round), short(one.sd), one.basis, f"{one.sessions_80:,}", f"{one.sessions_90:,}",
         "-" if one.cautious is None else f"{one.cautious:,}") for one in findings.power
    ]  # fmt: skip
    title = f"Sessions per case that show a difference of {findings.power[0].difference:g}" if findings.power else ""
    return _shown([
        Table(title, ("round", "SD", "known from", "power 80 %", "power 90 %", "cautious"), rows,
              "SD: of session means, with as many participants as here. Two-sided t test at 5 %. cautious: for 80 % if "
              "the SD is at the upper end of its 95 % interval."),
    ])  # fmt: skip


def _shown(tables: Iterable[Table]) -> list[Table]:
    """Tables that have rows, without columns that are empty throughout, and what their notes say of such columns."""
    return [_filled(table) for table in tables if table.rows]


def _filled(table: Table) -> Table:
    cells = [set(column) for column in zip(*table.rows, strict=True)]
    filled = [index for index, column in enumerate(cells) if not index or column - {"-", ""}]
    named = {heading.partition(" (")[0] for heading in table.headings} | {"not identified"}
    there = {table.headings[index].partition(" (")[0] for index in filled} | set.union(*cells)
    note = ". ".join(s for s in table.note.split(". ") if s.partition(":")[0] not in named - there)
    headings, *rows = ([row[index] for index in filled] for row in (table.headings, *table.rows))
    return Table(table.title, headings, rows, note if note.endswith(".") or not note else f"{note}.")


# --- figures as text -----------------------------------------------------------------------------------------


def short(value: float) -> str:
    """Three digits, of large numbers all before the point; `-` for none."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}" if size < 1e7 else f"{value:.3g}"
    return f"{value:.1f}" if size >= 9.995 else f"{value:.2f}" if size >= 0.005 or not value else f"{value:.1g}"


def _interval(found: Estimate, text: Callable[[float], str]) -> str:
    ends = "" if math.isnan(found.low) or math.isnan(found.high) else f" [{text(found.low)}, {text(found.high)}]"
    return text(found.value) + ends


def estimate(found: Estimate) -> str:
    """A value and its interval: `36.7 [31.9, 41.6]`."""
    return _interval(found, short)


def tau(found: Estimate) -> str:
    """The same of a tau, which may be beyond what is estimated."""

    def one(value: float) -> str:
        return short(value) if not math.isinf(value) else f">{LARGEST_TAU:g}" if value > 0 else "<0"

    return one(found.value) if found.low == found.high else _interval(found, one)


def limits(found: Bounds | None) -> str:
    """From one end to the other: `28.1 to 44.0`."""
    return "-" if found is None else f"{short(found.low)} to {short(found.high)}"


def percent(value: float) -> str:
    """A share in percent, with one decimal."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def share(found: Estimate) -> str:
    """A share in percent and its interval."""
    return _interval(found, percent)


def p_value(value: float) -> str:
    """Three decimals, or `<0.001`."""
    return "-" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def tested(found: Difference) -> Sequence[str]:
    """The columns of `_TESTED`."""
    if found.bounds and not found.bounds.identified:
        return estimate(found.estimate), "-", "not identified"
    return estimate(found.estimate), short(found.margin), p_value(found.p_holm)
