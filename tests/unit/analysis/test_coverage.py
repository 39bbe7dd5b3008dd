"""Every interval that is printed holds the truth in 93 to 97 of 100 samples of guesses as they are: bounded, heaped.

Samples are drawn many at a time, as counts of whole numbers from 0 to 100; that the vectorised formulas here are those
of the package is checked on single samples. Where an interval does not keep its confidence, the package gives none.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy

from pbeauty.analysis import intervals
from pbeauty.analysis.components import between_sessions, effects_of, over_wordings
from pbeauty.analysis.group_stats import BySession
from pbeauty.analysis.hierarchy import predicted_mean, tau_by_mean
from pbeauty.analysis.intervals import Estimate, Moments
from pbeauty.analysis.run_analysis import Clustered
from pbeauty.analysis.variation import Case, paired
from pbeauty.game.experiment import Game

VALUES = np.arange(101.0)
SIZES = (30, 300, 3000)
CLASSIC = Game()


def population(heaps, spread):
    """Probabilities of the numbers 0 to 100: heaps, and `spread` evenly over all."""
    weights = np.full(101, spread)
    for value, weight in heaps.items():
        weights[value] += weight
    return weights / weights.sum()


PEOPLE = population(
    {0: 4, 20: 5, 22: 8, 25: 9, 30: 6, 33: 14, 35: 6, 40: 6, 42: 3, 45: 3, 50: 13, 60: 3, 66: 3, 67: 3, 70: 2, 75: 2,
     80: 2, 90: 1, 100: 2}, 0.08,
)  # fmt: skip
"""A first round as people play it."""
MODEL = population({0: 6, 15: 8, 20: 6, 22: 22, 30: 5, 33: 40, 34: 3, 50: 8, 67: 1, 100: 1}, 0)
"""A first round as language models play it: two fifths say 33, and one in a hundred says 100."""
LATER = population(
    {0: 10, 1: 8, 2: 6, 3: 5, 4: 4, 5: 10, 6: 4, 7: 4, 8: 6, 9: 3, 10: 12, 11: 3, 12: 3, 15: 8, 16: 2, 18: 2, 20: 5,
     22: 2, 25: 2, 33: 1}, 0,
)  # fmt: skip
"""A fourth round, near the low end."""
GRID = np.linspace(0, 10, 1001)
PREDICTED = np.array([predicted_mean(CLASSIC, tau, 50) for tau in GRID])
POPULATIONS = {"people": PEOPLE, "model": MODEL, "later": LATER}


def moments(weights):
    mean = float(weights @ VALUES)
    return mean, math.sqrt(float(weights @ np.square(VALUES - mean)))


def samples(weights, n, times=6000, seed=1):
    """Counts, int64[sample, value], their means and their standard deviations with divisor n."""
    counts = np.random.default_rng(seed).multinomial(n, weights, size=times)
    means = counts @ VALUES / n
    return counts, means, np.sqrt(np.maximum(counts @ np.square(VALUES) / n - np.square(means), 0))


def guesses_of(counts):
    return np.repeat(VALUES, counts)


def nominal(hits):
    share = float(np.mean(hits))
    print(f"{100 * share:.1f} %")
    assert 0.93 <= share <= 0.97, f"an interval of 95 % holds the truth in {100 * share:.1f} %"


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", POPULATIONS)
def test_means(name, n):
    truth, _ = moments(POPULATIONS[name])
    _, means, sds = samples(POPULATIONS[name], n)
    reach = scipy.stats.t.ppf(0.975, n - 1) * sds / math.sqrt(n - 1)
    one = Moments(means[0], sds[0] / math.sqrt(n - 1), n).interval()
    assert one.high - one.value == pytest.approx(reach[0])
    nominal(np.abs(means - truth) <= reach)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", ["people", "model"])
def test_tau(name, n):
    """A monotone function of the mean: it holds the true tau whenever the mean's interval holds the true mean."""
    truth = tau_by_mean(CLASSIC, Estimate(moments(POPULATIONS[name])[0]), 50).value
    _, means, sds = samples(POPULATIONS[name], n, times=3000)
    reach = scipy.stats.t.ppf(0.975, n - 1) * sds / math.sqrt(n - 1)
    low, high = (np.interp(-(means + sign * reach), -PREDICTED, GRID) for sign in (1, -1))
    one = tau_by_mean(CLASSIC, Moments(means[0], sds[0] / math.sqrt(n - 1), n).interval(), 50)
    assert (one.low, one.high) == pytest.approx((low[0], high[0]), abs=1e-3)
    nominal((low <= truth) & (truth <= high))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", POPULATIONS)
def test_standard_deviations(name, n):
    _, truth = moments(POPULATIONS[name])
    counts, _, sds = samples(POPULATIONS[name], n, times=1000)
    found = [intervals.deviation(guesses_of(row), sd) for row, sd in zip(counts, sds, strict=True)]
    if n < intervals.FEWEST_FOR_SD:
        assert all(math.isnan(one.low) for one in found), "an interval that holds the truth too rarely is given"
    else:
        nominal([one.low <= truth <= one.high for one in found])


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", POPULATIONS)
def test_shares(name, n):
    """Exactly, over all counts that can be: shares of a level, of the equilibrium, of unusable replies."""
    for low, high in ((45, 50), (30, 37), (20, 25), (13, 16), (0, 1)):
        truth = float(POPULATIONS[name][low : high + 1].sum())
        if not 0.01 <= truth <= 0.99:
            continue
        found = [intervals.share(count, n) for count in range(n + 1)]
        if n < intervals.FEWEST_FOR_SHARES:
            assert all(math.isnan(one.low) for one in found)
            continue
        chances = scipy.stats.binom.pmf(range(n + 1), n, truth)
        covered = sum(chance for one, chance in zip(found, chances, strict=True) if one.low <= truth <= one.high)
        assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("pair", [("people", "model"), ("people", "people"), ("model", "later")])
def test_differences_of_groups(pair, n):
    """Two groups of a game, of sizes n and n / 2: Welch's t."""
    first, second = (
        samples(POPULATIONS[name], size, 2500, seed)
        for seed, (name, size) in enumerate(zip(pair, (n, n // 2), strict=True))
    )
    truth = moments(POPULATIONS[pair[0]])[0] - moments(POPULATIONS[pair[1]])[0]
    moments_of = [
        [Moments(mean, sd / math.sqrt(size - 1), size) for mean, sd in zip(means, sds, strict=True)]
        for (_, means, sds), size in ((first, n), (second, n // 2))
    ]
    found = [intervals.difference(one, other).estimate for one, other in zip(*moments_of, strict=True)]
    nominal([one.low <= truth <= one.high for one in found])


@pytest.mark.parametrize("n", SIZES)
def test_clustered_by_participant(n):
    """Participants who keep their own offset over four rounds, some of whose replies are unusable."""
    generator = np.random.default_rng(5)
    centres = np.array([36.0, 24, 16, 11])
    hits = []
    for _ in range(1000 if n < 3000 else 500):
        own = generator.normal(0, 6, n)
        guesses = np.rint(np.clip(centres[:, None] + own + generator.choice([-5, 0, 5], (4, n)), 0, 100))
        guesses[generator.random((4, n)) < 0.1] = np.nan
        clustered = Clustered(n, 4)
        for index in range(4):
            clustered.add(index, guesses[index])
        hits.append([found.interval() for found in clustered.moments()])
    average, trend = ([pair[which] for pair in hits] for which in (0, 1))
    # The truth of clipped and rounded guesses, from a large sample.
    own = generator.normal(0, 6, 400_000)
    large = np.rint(np.clip(centres[:, None] + own + generator.choice([-5, 0, 5], (4, own.size)), 0, 100)).mean(axis=1)
    truths = large.mean(), np.polyfit(range(4), large, 1)[0]
    for found, truth in zip((average, trend), truths, strict=True):
        nominal([one.low <= truth <= one.high for one in found])


@pytest.mark.parametrize("sessions", [2, 5, 20])
def test_means_over_sessions_and_where_another_would_be(sessions):
    """Sessions of 17 people who move together: the interval by session holds, and so does that for one more session."""
    generator = np.random.default_rng(2)

    def means(shape):
        """A session's mean: its own level, and 17 heaped guesses around it."""
        heaped = generator.multinomial(17, PEOPLE, size=shape) @ VALUES / 17
        return heaped + generator.normal(0, 4, shape)

    truth = moments(PEOPLE)[0]
    played, further = means((6000, sessions)), means(6000)
    reach = scipy.stats.t.ppf(0.975, sessions - 1) * played.std(axis=1, ddof=1) / math.sqrt(sessions)
    one = intervals.prediction(played[0].tolist())
    assert one.high - one.value == pytest.approx(reach[0] * math.sqrt(sessions + 1))
    nominal(np.abs(played.mean(axis=1) - truth) <= reach)
    nominal(np.abs(played.mean(axis=1) - further) <= reach * math.sqrt(sessions + 1))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("layout", [(5,), (12,), (4, 4, 4)])
def test_standard_deviation_between_sessions(layout, n):
    """Sessions of n heaped guesses each, with means that differ by a standard deviation of 3 besides."""
    generator = np.random.default_rng(4)
    hits = []
    for _ in range(500):
        means, within = [], []
        for size in layout:
            counts, drawn, sds = samples(PEOPLE, n, size, generator)
            assert counts.shape[0] == size
            means.append(drawn + generator.normal(0, 3, size))
            within.append(np.square(sds) / (n - 1))
        found = between_sessions(means, within)
        hits.append(found.low <= 3 <= found.high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.025)  # 2.5 standard errors of 500 trials


@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
def test_shares_of_variance(share):
    """Two cases of six sessions; the effect's share of the variance is known by how the means are made."""
    generator = np.random.default_rng(8)
    half = math.sqrt(share / (1 - share))  # of the difference between cases, in standard deviations of sessions
    hits = []
    for _ in range(1000):
        heaped = generator.multinomial(60, PEOPLE, size=(2, 6)) @ VALUES / 60
        scaled = (heaped - moments(PEOPLE)[0]) / (moments(PEOPLE)[1] / math.sqrt(60))
        cases = [({"p": name}, scaled[index] + sign * half) for index, (name, sign) in enumerate((("a", -1), ("b", 1)))]
        (effect,) = effects_of(1, cases, ["p"], 0.95)
        hits.append(effect.share.low <= share <= effect.share.high)
    nominal(hits)


def test_a_key_without_effect_has_no_share():
    """The share is not what a sum of squares has by chance; its interval holds 0, as the F test has it, 97.5 times."""
    generator = np.random.default_rng(9)
    found = []
    for _ in range(800):
        means = generator.multinomial(60, PEOPLE, size=(3, 4)) @ VALUES / 60
        (effect,) = effects_of(1, [({"p": str(i)}, means[i]) for i in range(3)], ["p"], 0.95)
        found.append(effect)
    assert np.median([effect.share.value for effect in found]) == 0
    assert np.mean([effect.share.low == 0 for effect in found]) == pytest.approx(0.975, abs=0.017)
    assert np.mean([effect.p_value < 0.05 for effect in found]) == pytest.approx(0.05, abs=0.023)


# --- sessions of one run: 20 of 18, each with an effect of its own on all who are in it ------------------------------

SESSIONS, MEMBERS = 20, 18


def tilted(weights, effects):
    """Probabilities of the numbers 0 to 100 in sessions that favour larger or smaller ones, float64[..., value]."""
    found = weights * np.exp(effects[..., None] * (VALUES - 37) / 100)
    return found / found.sum(axis=-1, keepdims=True)


def played(weights, times, generator, n=MEMBERS, effects=None):
    """Counts of guesses, int64[time, session, value]."""
    effects = generator.normal(0, 0.6, (times, SESSIONS)) if effects is None else effects
    return generator.multinomial(n, tilted(weights, effects))


def truth_of(weights):
    """Probabilities of the numbers 0 to 100, whatever the session."""
    return tilted(weights, np.random.default_rng(0).normal(0, 0.6, 20_000)).mean(axis=0)


@pytest.mark.parametrize("name", POPULATIONS)
def test_means_over_the_sessions_of_a_run(name):
    truth = truth_of(POPULATIONS[name]) @ VALUES
    means = played(POPULATIONS[name], 3000, np.random.default_rng(1)) @ VALUES / MEMBERS
    found = [intervals.moments(one).interval() for one in means]
    nominal([one.low <= truth <= one.high for one in found])


def test_tau_over_the_sessions_of_a_run():
    """In a second round, in which every session starts from its own reference."""
    generator = np.random.default_rng(2)

    def sessions(times):
        effects = generator.normal(0, 0.6, (times, SESSIONS))
        references, draws = (played(PEOPLE, times, generator, effects=effects) @ VALUES / MEMBERS for _ in range(2))
        return references, draws * references / 50

    large = [table.reshape(-1) for table in sessions(1000)]
    truth = tau_by_mean(CLASSIC, Estimate(large[1].mean()), large[0], large[1]).value
    found = [tau_by_mean(CLASSIC, Estimate(y.mean()), r, y) for r, y in zip(*sessions(400), strict=True)]
    nominal([one.low <= truth <= one.high for one in found])


def test_trends_over_the_sessions_of_a_run():
    """Four rounds, in which a session keeps its effect; in some, one session has ended after the second round."""
    generator = np.random.default_rng(3)
    factors = np.array([1.0, 0.7, 0.5, 0.4])

    def means(times, sessions=SESSIONS):
        effects = generator.normal(0, 0.6, (times, sessions))
        rounds = [played(PEOPLE, times, generator, effects=effects) @ VALUES / MEMBERS * f for f in factors]
        return np.stack(rounds, axis=1)

    truths = means(1, 20_000)[0].mean(axis=1)
    found = []
    for index, game in enumerate(means(1200)):
        if index % 4 == 0:
            game[2:, 0] = np.nan
        clustered = Clustered(SESSIONS, 4)
        for number, row in enumerate(game):
            clustered.add(number, row)
        found.append([one.interval() for one in clustered.moments()])
    nominal([average.low <= truths.mean() <= average.high for average, _ in found])
    slope = np.polyfit(range(4), truths, 1)[0]
    nominal([trend.low <= slope <= trend.high for _, trend in found])


def test_differences_of_groups_in_the_sessions_of_a_run():
    """Two groups of nine in every session, which share its effect."""
    generator = np.random.default_rng(4)
    effects = generator.normal(0, 0.6, (3000, SESSIONS))
    people, model = (played(w, 3000, generator, 9, effects) @ VALUES / 9 for w in (PEOPLE, MODEL))
    truth = (truth_of(PEOPLE) - truth_of(MODEL)) @ VALUES
    one, other = intervals.moments(people[0]), intervals.moments(model[0])
    pairs = [intervals.difference(one, other, paired=intervals.moments(y)).estimate for y in people - model]
    nominal([one.low <= truth <= one.high for one in pairs])


def test_differences_of_cases_that_share_random_numbers():
    """Two cases of one seed, whose participants draw with the same random numbers: by session the interval holds, and
    Welch's would be too wide."""
    generator = np.random.default_rng(10)

    def case(weights, draws, effects):
        """A case of one run, whose participants guess where their draw is in the distribution of their session."""
        ladders = np.cumsum(tilted(weights, effects), axis=-1)
        guesses = [np.searchsorted(ladder[:-1], drawn) for ladder, drawn in zip(ladders, draws, strict=True)]
        cell = SimpleNamespace(round=1, means=np.mean(guesses, axis=1))
        analysis = SimpleNamespace(experiment=SimpleNamespace(seed=1), sessions=SESSIONS, of=lambda: [cell])
        return Case({}, [analysis])

    truth = (truth_of(MODEL) - truth_of(PEOPLE)) @ VALUES
    by_session, welchs = [], []
    for _ in range(1500):
        draws, effects = generator.random((SESSIONS, MEMBERS)), generator.normal(0, 0.6, SESSIONS)
        people, model = (case(weights, draws, effects) for weights in (PEOPLE, MODEL))
        one, other = (intervals.moments(case.cells(1)[1].means) for case in (model, people))
        by_session.append(intervals.difference(one, other, paired=paired(model, people, 1)).estimate)
        welchs.append(intervals.difference(one, other).estimate)
    nominal([one.low <= truth <= one.high for one in by_session])
    assert np.mean([one.low <= truth <= one.high for one in welchs]) > 0.99


def shares_by_session(counts, size):
    """Of samples, counts int64[sample, session] of sessions of `size`: their intervals, and which of them are given."""
    sessions, n = counts.shape[1], counts.shape[1] * size
    p = counts.sum(axis=1) / n
    variance = np.square(counts - size * p[:, None]).sum(axis=1) * sessions / (sessions - 1) / n**2
    kinds = (counts.astype(float), size - counts.astype(float))
    given = np.min([(kind > 0).sum(axis=1) for kind in kinds], axis=0) >= intervals.FEWEST_SESSIONS_FOR_SHARES
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.where(variance > 0, p * (1 - p) / variance, n)
        alike = np.min([np.square(kind.sum(axis=1)) / np.square(kind).sum(axis=1) for kind in kinds], axis=0)
    effective = effective * np.square(
        scipy.special.stdtrit(n - 1, 0.975) / scipy.special.stdtrit(np.maximum(alike - 1, 1), 0.975)
    )
    k = p * effective
    low, high = (
        scipy.special.betaincinv(k, effective - k + 1, 0.025),
        scipy.special.betaincinv(k + 1, effective - k, 0.975),
    )
    for row in range(5):
        one = intervals.share_by_session(counts[row], np.full(sessions, size))
        expected = (low[row], high[row]) if given[row] else (np.nan, np.nan)
        assert (one.low, one.high) == pytest.approx(expected, nan_ok=True)
    return low, high, given


@pytest.mark.parametrize("window", [(45, 50), (30, 37), (20, 25), (13, 16), (0, 1), (99, 100)])
@pytest.mark.parametrize("name", ["people", "model"])
def test_shares_over_the_sessions_of_a_run(name, window):
    """Also of rare levels, down to one guess in a hundred, whose intervals hold the truth somewhat more often."""
    inside = (window[0] <= VALUES) & (window[1] >= VALUES)
    truth = float(truth_of(POPULATIONS[name])[inside].sum())
    if truth < 0.009:
        return
    counts = played(POPULATIONS[name], 4000, np.random.default_rng(5))[..., inside].sum(axis=-1)
    low, high, given = shares_by_session(counts, MEMBERS)
    if given.mean() < 0.1:
        return
    covered = np.mean((low <= truth) & (truth <= high), where=given)
    assert 0.93 <= covered <= (0.97 if truth > 0.1 else 1)


@pytest.mark.parametrize("sessions", [5, 10, 20, 50])
@pytest.mark.parametrize("size", [5, 18, 60, 1000])
def test_shares_over_sessions_that_differ(size, sessions):
    """Of those intervals that are given, where that is one in ten or more: sessions that differ not at all to a lot."""
    generator = np.random.default_rng(7)
    for alike in (0, 0.03, 0.1):  # the correlation within sessions
        for truth in (0.01, 0.03, 0.1, 0.3, 0.5):
            shares = np.full((3000, sessions), truth)
            if alike:
                shares = generator.beta(truth / alike - truth, (1 - truth) * (1 / alike - 1), shares.shape)
            low, high, given = shares_by_session(generator.binomial(size, shares), size)
            if given.mean() < 0.1:
                continue
            covered = np.mean((low <= truth) & (truth <= high), where=given)
            assert covered >= 0.93 - 2 * math.sqrt(0.065 / given.sum()), (alike, truth)
            assert covered <= 0.975 or truth < 0.1 or sessions * size < 360, (alike, truth)


def test_wordings_as_a_sample():
    """Six wordings of two cases of five sessions: wordings differ by 4, and by 2 more from case to case."""
    generator = np.random.default_rng(6)
    nothing = np.zeros(5)
    hits = []
    for _ in range(800):
        own, each = generator.normal(0, 4, 6), generator.normal(0, 2, (2, 6))
        cases = []
        for case, lift in enumerate((0, 5)):
            for wording in range(6):
                heaped = generator.multinomial(MEMBERS, PEOPLE, size=5) @ VALUES / MEMBERS
                means = heaped + lift + own[wording] + each[case, wording]
                sessions = BySession(nothing + 18, nothing + 18, means, *[nothing] * 4)
                cases.append(({"p": str(case), "population.0.user_prompt": str(wording)}, sessions))
        first, second = over_wordings(1, cases, ["p", "population.0.user_prompt"], 0.95)
        assert first.difference is None
        gap, spread, mean = second.difference.estimate, first.between, second.mean
        truths = (5, math.sqrt(4**2 + 2**2), moments(PEOPLE)[0] + 5)
        hits.append([one.low <= truth <= one.high for one, truth in zip((gap, spread, mean), truths, strict=True)])
    for which in np.array(hits).T:
        nominal(which)
