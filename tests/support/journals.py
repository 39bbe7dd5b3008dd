"""Journals, record by record, as they lie on the disk."""

from __future__ import annotations

from pbeauty.storage.journal import payloads, unpacked


def read(path):
    """The records of a journal in order, as (participant, call, reply); None wherever there is no whole record."""
    for payload in payloads(path):
        yield payload and unpacked(payload)
