"""Journals, record by record, as they lie on the disk."""

from __future__ import annotations

from pbeauty.storage.journal import payloads, record_of


def read(path):
    """The records of a journal in order; None wherever there is no whole record."""
    for payload in payloads(path):
        yield payload and record_of(payload)
