"""All readers of files that others may have made."""

from __future__ import annotations

from data_readers import DATA
from file_readers import FILES

READERS = {reader.name: reader for reader in (*FILES, *DATA)}
