"""Reads result folders of AgentScope's published example by their layout alone: `python -I read_agentscope.py ROOT`.

Walks <benchmark>/<model>/<sys>-<usr>-<n>-<hosts>-<ratio>/<timestamp>/result_<round>.json; takes from `data` the values
that the participants P<i> gave; prints, as JSON, the settings in the folders' names, and by round the count of
each whole number from 0 to 100 (as the example draws it) and the statistics, computed anew beside those in `stats`.
"""

import json
import re
import statistics
import sys
from pathlib import Path

games = []
for folder in sorted(path.parent for path in Path(sys.argv[1]).glob("*/*/*/*/result_0.json")):
    benchmark, model, settings, timestamp = folder.parts[-4:]
    system, user, count, hosts, ratio = re.fullmatch(r"([^-]+)-([^-]+)-(\d+)-(\d+)-(\d\.\d{3})", settings).groups()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d", timestamp), timestamp
    rounds = []
    for number in range(len(list(folder.glob("result_*.json")))):
        with (folder / f"result_{number}.json").open(encoding="utf-8") as file:
            result = json.load(file)
        assert (folder / f"result_{number}.pdf").read_bytes()[:5] == b"%PDF-"
        values = []
        for name, entry in result["data"].items():
            assert re.fullmatch(r"P\d+", name) and entry["round"] == number + 1
            values.append(float(entry["value"]))
        counts = [0] * 101
        for value in values:
            counts[int(value)] += 1
        computed = {
            "cnt": len(values),
            "avg": statistics.fmean(values),
            "med": statistics.median(values),
            "std": statistics.pstdev(values),
            "max": max(values),
            "min": min(values),
        }
        rounds.append({"counts": counts, "computed": computed, "stats": result["stats"]})
    settings = {"system": system, "user": user, "count": int(count), "hosts": int(hosts), "ratio": float(ratio)}
    games.append({"benchmark": benchmark, "model": model, **settings, "rounds": rounds})
print(json.dumps(games))
