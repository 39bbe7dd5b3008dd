"""Journals, record by record, as they lie on the disk."""

from __future__ import annotations

import struct

from pbeauty.storage.journal import Record, records

HEAD = struct.Struct("<4sIIQHBII")


def read(path):
    """The records of a journal in order; None wherever there is no whole record."""
    data = path.read_bytes()
    for span in records(data):
        if span is None:
            yield None
            continue
        start, end = span
        *_, participant, call, truncated, prompt, cached = HEAD.unpack_from(data, start)
        tokens = [token for (token,) in struct.iter_unpack("<i", data[start + HEAD.size : end])]
        yield Record(participant, call, bool(truncated), prompt, cached, tokens)
