"""The report: one page that needs nothing but itself, in a real browser too."""

import base64
import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from made import experiment, make

from pbeauty.cli.main import main
from pbeauty.cli.report import readable, report
from pbeauty.errors import ConfigError
from pbeauty.game.records import Purpose

EVIL = (
    '<script>document.title = "owned"; fetch("https://evil.invalid/x")</script><img src="https://evil.invalid/y.png">'
)
COUNT = 40
GENERATOR = np.random.default_rng(4)
GUESSES = np.clip(GENERATOR.normal(37, 18, (3, COUNT)) * np.array([[1.0], [0.6], [0.4]]), 0, 100).round()
GUESSES[0, 5] = np.nan
TALKERS = [{"name": "talkers", "count": COUNT - 10, "kind": "llm"}, {"name": "noise", "count": 10, "kind": "uniform"}]


def said(index):
    for participant in range(COUNT - 10):
        text = EVIL if participant == 5 else f"I say {GUESSES[index, participant]:g}\x1b[31m\x07 &amp; <b>done</b>"
        yield participant, Purpose.ANSWER, text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "run"
    described = experiment(COUNT, population=TALKERS, rounds=3, name="page")
    return make(path, GUESSES, described, said=[list(said(index)) for index in range(3)])


@pytest.fixture(scope="module")
def page(folder):
    return report([folder], None, confidence=0.95, samples=2)


class _Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.text += data


def test_nothing_in_the_page_comes_from_elsewhere(page):
    parsed = _Page(page.read_text(encoding="utf-8"))
    assert "script" not in parsed.tags
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)
    loaded = [value for _, name, value in parsed.attributes if name in ("src", "href", "srcset", "data", "action")]
    assert loaded
    assert all(value.startswith(("data:", "#")) for value in loaded)
    ids = {value for _, name, value in parsed.attributes if name == "id"}
    targets = [value[1:] for _, name, value in parsed.attributes if name == "href" and value.startswith("#")]
    assert len(targets) >= 7
    assert set(targets) <= ids
    (policy,) = [v for _, name, v in parsed.attributes if name == "content" and "default-src" in v]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert not re.search(r"@import|url\(", page.read_text(encoding="utf-8"))


def test_replies_stay_text(page):
    parsed = _Page(page.read_text(encoding="utf-8"))
    assert EVIL in parsed.text
    assert "&amp; <b>done</b>" in parsed.text
    assert "\x1b" not in parsed.text
    assert "\x07" not in parsed.text


def test_what_was_run_is_told(page):
    text = _Page(page.read_text(encoding="utf-8")).text
    for told in ("talkers (30 llm)", "2/3 x mean", "node-1", "no evidence", "talkers: system", "{multiplier}",
                 "I cannot read a number from 0 to 100", "said:\n\n…\n\nWhich number",
                 "unparsable", "multiplier:", "UNFINISHED"):  # fmt: skip
        assert (told in text) == (told not in ("UNFINISHED", "{multiplier}")), told
    assert len(re.findall(r"<h\d[^>]*>page<", page.read_text(encoding="utf-8"))) == 1, "its name is in two headings"
    (mean,) = re.findall(r"Guesses by round.*?\n1\n?\s*39\n?\s*([0-9.]+) \[", text, re.DOTALL)[:1]
    assert float(mean) == pytest.approx(np.nanmean(GUESSES[0]), abs=0.06)


def test_the_page_is_light_and_its_pictures_are_whole(page):
    assert page.stat().st_size < 1_000_000
    uris = re.findall(r'src="data:image/png;base64,([^"]+)"', page.read_text(encoding="utf-8"))
    assert len(uris) >= 8
    for uri in uris:
        png = base64.b64decode(uri, validate=True)
        assert png.startswith(b"\x89PNG")
        assert struct.unpack(">I", png[16:20])[0] == 1300
        assert zlib.crc32(png[12:29]) == struct.unpack(">I", png[29:33])[0]


def test_a_page_about_sessions_says_how_many_ended_and_whose_replies_are_shown(tmp_path):
    guesses = np.array([np.nan_to_num(GUESSES, nan=50.0)[0].copy() for _ in range(2)])
    guesses[1, 10:20] = np.nan
    words = [[(i, Purpose.ANSWER, f"I say {row[i]:g}") for i in range(COUNT) if i % 10 < 8] for row in guesses]
    population = [{"name": "a", "count": 4, "kind": "llm"}, {"name": "b", "count": 4, "kind": "llm", "announce": []}]
    population.append({"name": "noise", "count": 2, "kind": "uniform"})
    about = experiment(10, sessions=4, rounds=2, population=population)
    make(tmp_path, guesses, about, said=words)
    text = " ".join(
        _Page(report([tmp_path], None, confidence=0.95, samples=2).read_text(encoding="utf-8")).text.split()
    )
    assert "1 of 4 sessions ended with a round without a valid guess" in text
    assert "Sessions, mean guess" in text
    named = {(int(s), int(p)) for s, p in re.findall(r"round \d, session (\d+), participant (\d+)", text)}
    assert len(named) > 5
    assert all(session == participant // 10 + 1 for session, participant in named)
    assert "b: user, round 2Round 1 is over. Round 2. Reply" in text
    assert "a: user, round 2Round 1 is over. The target was …. Round 2. Reply" in text


def test_a_page_of_an_unfinished_run_says_so(tmp_path, capsys):
    make(tmp_path, GUESSES, experiment(COUNT, rounds=9))
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "pages" / "page.html")]) == 0
    text = (tmp_path / "pages" / "page.html").read_text(encoding="utf-8")
    assert _Page(text).text.count("UNFINISHED RUN: 3 of 9 rounds") == 1
    assert capsys.readouterr().out.strip().endswith("page.html")
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == ["page.html"]


def test_a_page_about_a_run_without_a_round(tmp_path):
    make(tmp_path, np.empty((0, 4)), experiment(4, rounds=2))
    text = report([tmp_path], None, confidence=0.95, samples=2).read_text(encoding="utf-8")
    assert "No round is finished yet" in text


def test_a_page_about_a_link_to_a_run_lies_beside_the_run(tmp_path):
    make(tmp_path / "run", np.nan_to_num(GUESSES), experiment(COUNT, rounds=3))
    (tmp_path / "best.h5").symlink_to("run/run.h5")
    assert report([tmp_path / "best.h5"], None, confidence=0.95, samples=0) == tmp_path / "run/report.html"


def test_a_page_about_a_sweep(tmp_path):
    for seed in range(2):
        for p in ("1/2", "2/3"):
            described = experiment(COUNT, seed=seed, rounds=3, multiplier=p)
            make(tmp_path / f"{seed}{p[0]}", np.nan_to_num(GUESSES) + seed, described)
    text = _Page(report([tmp_path], None, confidence=0.9, samples=0).read_text(encoding="utf-8")).text
    assert (tmp_path / "report.html").exists()
    assert "4 runs; what varies between them: game.multiplier" in " ".join(text.split())
    assert f"{tmp_path.name}, 4 runs" in text
    assert "multiplier=1/2, seed 0" in text
    assert "mean, round 1" in text
    assert "90 %" in text


def test_replies_that_were_taken_away_are_missed_with_a_word(tmp_path, capsys):
    described = experiment(COUNT, population=TALKERS, rounds=3)
    make(tmp_path, GUESSES, described, said=[list(said(index)) for index in range(3)])
    shutil.rmtree(tmp_path / "replies")
    report([tmp_path], None, confidence=0.95, samples=1)
    assert "shows no replies of round 1" in capsys.readouterr().err


def test_a_page_that_cannot_be_written(tmp_path):
    make(tmp_path / "run", [[50.0]], experiment(1, multiplier="1"))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write the report"):
        report([tmp_path / "run"], tmp_path / "file" / "page.html", confidence=0.95, samples=0)


def test_text_over_lines():
    assert readable("a\r\nb\x00\x1bc\td\n") == "a\nb\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}c d\n"
    assert readable("x" * 5000).endswith("… (5,000 characters)")


# --- in a browser --------------------------------------------------------------------------------------------


def browse(page, tmp_path, *arguments):
    """Runs a headless Chromium on a page; its output, and the hosts that it asked for."""
    program = shutil.which("chromium")
    if not program:
        missing = "not installed: apt-get install -y --no-install-recommends chromium"
        if os.environ.get("CI"):
            pytest.fail(f"the tests in a browser cannot run: {missing}", pytrace=False)
        pytest.skip(f"the tests in a browser do NOT run here: {missing}")
    log = tmp_path / "net.json"
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", f"--user-data-dir={tmp_path / 'profile'}",
        f"--log-net-log={log}", "--net-log-capture-mode=Everything",
    ]  # fmt: skip
    done = subprocess.run([program, *flags, *arguments, page.as_uri()], capture_output=True, timeout=120, check=True)
    return done.stdout.decode(), log.read_text(encoding="utf-8")


def asked(log):
    """The addresses that a page has asked for, from a network log; what the browser asks for itself has no origin."""
    text = log.rstrip().rstrip(",")
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:  # a browser that ends at once leaves the list open
        events = json.loads(text + "]}")["events"]
    requests = [event.get("params", {}) for event in events]
    pages = [request for request in requests if request.get("initiator") not in (None, "not an origin")]
    return {str(request["url"]) for request in pages if not str(request["url"]).startswith("data:")}


def test_in_a_browser_nothing_is_fetched_and_no_script_runs(page, tmp_path):
    dom, log = browse(page, tmp_path, "--dump-dom")
    assert "<title>page: p-beauty contest</title>" in dom, "a script has renamed the page"
    assert "&lt;script&gt;document.title" in dom
    assert asked(log) == set()


def test_the_browser_would_show_a_fetch(tmp_path):
    """The test above can fail: the same browser, on a page that does fetch."""
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://127.0.0.1:9/y.png"><script>document.title = "owned"</script>')
    dom, log = browse(bad, tmp_path, "--dump-dom")
    assert "owned</title>" in dom
    assert asked(log) == {"http://127.0.0.1:9/y.png"}


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_the_screen(page, tmp_path, width):
    """It may scroll down, not sideways; a copy of the page in a frame of that width measures itself by a script."""
    text = page.read_text(encoding="utf-8")
    relaxed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    script = "parent.postMessage(document.documentElement.scrollWidth + ' of ' + window.innerWidth, '*')"
    (tmp_path / "copy.html").write_text(relaxed.replace("</body>", f"<script>{script}</script></body>"))
    probe = tmp_path / "probe.html"
    probe.write_text(
        "<script>onmessage = message => { document.title = message.data }</script>"
        f'<iframe src="copy.html" style="width: {width}px; height: 900px; border: 0"></iframe>'
    )
    dom, _ = browse(probe, tmp_path, "--dump-dom", "--window-size=1400,900", "--virtual-time-budget=5000")
    wide, room = map(int, re.search(r"<title>(\d+) of (\d+)</title>", dom).groups())
    assert wide <= room
    assert room <= width


def test_the_page_prints(page, tmp_path):
    browse(page, tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF-")
    assert (tmp_path / "page.pdf").stat().st_size > 50_000
