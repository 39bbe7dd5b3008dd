"""The tables of a run for notebooks: pandas frames where pandas is installed, structured arrays where it is not."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from pbeauty.storage.hdf5 import read_labels


def rounds(file: h5py.File) -> Any:
    """One row per finished round, with a column for each dataset of `/rounds` that has one value a round.

    Returns:
        A pandas frame whose index `round` counts from 1; without pandas a structured array with `round` as its
        first field.
    """
    columns = {name: data[:] for name, data in sorted(file["rounds"].items()) if data.ndim == 1}
    numbers = np.arange(1, len(file["rounds/target"]) + 1)
    if pandas := _pandas():
        return pandas.DataFrame(columns, index=pandas.Index(numbers, name="round"))
    return _structured({"round": numbers, **columns})


def participants(file: h5py.File) -> Any:
    """One row per participant, with a column for the group, each attribute of personas and the background's source.

    Returns:
        A pandas frame of categories, whose index `participant` is the id; without pandas a structured array of
        `participant` and the codes, which `Run.attributes` has the labels of (`background_source`: `personas.Source`).
    """
    datasets = dict(file["participants"])
    if "personas/source" in file:
        datasets["background_source"] = file["personas/source"]
    columns = {name: data[:] for name, data in datasets.items()}
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
    length = len(next(iter(columns.values())))
    table = np.empty(length, [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        table[name] = values
    return table
