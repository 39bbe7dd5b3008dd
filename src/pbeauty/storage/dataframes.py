"""The tables of a run for notebooks: pandas frames where pandas is installed, structured arrays where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pbeauty.config.differences import varied_settings
from pbeauty.storage.hdf5 import read_errors, read_labels
from pbeauty.storage.schema import PER_ROUND, PER_SESSION


def rounds(file: h5py.File) -> Any:
    """One row per finished round and session, with a column for each dataset of `/rounds` that has one value there.

    Those that have one value a round, such as `seconds`, repeat it for each session.

    Returns:
        A pandas frame whose index is `round`, from 1, and where there are several sessions `round` and `session`, from
        1; without pandas a structured array with both as its first fields.
    """
    columns = _round_columns(file)
    if not (pandas := _pandas()):
        return _structured(columns)
    several = file["rounds/target"].shape[1] > 1
    frame = pandas.DataFrame(columns).set_index(["round", "session"] if several else "round")
    return frame if several else frame.drop(columns="session")


def rounds_of_runs(paths: Sequence[Path]) -> Any:
    """One row per run, round and session, of all runs that are meant (`run_folder.find_runs`).

    Returns:
        A pandas frame, without pandas a structured array: the name of the run, the settings that vary between runs, by
        key, such as `game.multiplier`, then round and session, from 1, and the figures of `rounds`.

    Raises:
        ConfigError: if there is no such run.
        RunFileError: if one is damaged.
    """
    from pbeauty.storage.run_folder import named_runs
    from pbeauty.storage.run_reader import Run

    names, experiments, tables = [], [], []
    for name, path in named_runs(paths).items():
        with Run(path) as run, read_errors(path):
            names.append(name)
            experiments.append(run.experiment)
            tables.append(_round_columns(run.file))
    lengths = [len(table["round"]) for table in tables]
    abouts = [{"run": name} | about for name, about in zip(names, varied_settings(experiments), strict=True)]
    columns = {key: np.repeat(np.array([about[key] for about in abouts]), lengths) for key in abouts[0]}
    columns |= {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    return pandas.DataFrame(columns) if (pandas := _pandas()) else _structured(columns)


def _round_columns(file: h5py.File) -> dict[str, np.ndarray]:
    shape = file["rounds/target"].shape
    figures = {name: file["rounds"][name][:] for name in sorted(PER_SESSION.keys() | PER_ROUND.keys())}
    number, session = (index.ravel() + 1 for index in np.indices(shape))
    columns = {name: np.broadcast_to(values.T, shape[::-1]).T.ravel() for name, values in figures.items()}
    return {"round": number, "session": session, **columns}


def participants(file: h5py.File) -> Any:
    """One row per participant: its group, session from 1, attributes of personas, and the source of its background.

    Returns:
        A pandas frame, of categories but for the session, whose index `participant` is the id; without pandas a
        structured array of `participant` and the codes, which `Run.attributes` has the labels of
        (`background_source`: `personas.Source`).
    """
    datasets = dict(file["participants"])
    if "personas/source" in file:
        datasets["background_source"] = file["personas/source"]
    columns = {name: data[:] + (name == "session") for name, data in datasets.items()}
    ids = np.arange(datasets["group"].shape[0])
    if pandas := _pandas():
        named = {
            name: pandas.Categorical.from_codes(codes.astype(np.int32), read_labels(datasets[name]))
            if "labels" in datasets[name].attrs
            else codes
            for name, codes in columns.items()
        }
        return pandas.DataFrame(named, index=pandas.Index(ids, name="participant"))
    return _structured({"participant": ids, **columns})


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        return None
    return pandas


def _structured(columns: dict[str, np.ndarray]) -> np.ndarray:
    return np.rec.fromarrays(list(columns.values()), dtype=[(name, values.dtype) for name, values in columns.items()])
