"""One file, or parallel files -> their rows, or an error that names the place."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

from edgetune import progress
from edgetune.data import conll
from edgetune.data.decode import SAVE_AS, decode
from edgetune.data.forms import BYTES, FORMS, WITH_HEADER, parallel
from edgetune.data.table import Table
from edgetune.errors import DataError

GZIP = ".gz"


def read(path: Path, encoding: str = "utf-8", header: tuple[str, ...] = ()) -> Table:
    """Every row of `path`; `header` names the columns of a CSV or TSV file that has no header line.

    Raises DataError when the file as a whole cannot be read: empty, binary, in another encoding, ...
    """
    suffix = suffix_of(path)
    form = FORMS.get(suffix)
    raw = _bytes(path, unread=form is None)
    if form is None:
        if raw and conll.looks_like(text := decode(path.name, raw, encoding)):
            progress.note(f"{path.name} has a word and its tag a line; read as CoNLL")
            suffix, form = conll.SUFFIXES[0], FORMS[conll.SUFFIXES[0]]
        else:
            raise _unread(path)
    if header and suffix not in WITH_HEADER:
        raise DataError(f"{path.name}: data.header names the columns of CSV and TSV files", mend="leave data.header out")
    if suffix in BYTES:
        table = form(path.name, raw, header)
    else:
        text = decode(path.name, raw, encoding)
        if not text.strip():
            raise DataError(f"{path.name} is empty (only blank lines)", details=[str(path)])
        table = form(path.name, text, header)
    if not table.read:
        has = "a header and no rows" if table.columns else "no rows"
        raise DataError(f"{path.name} has {has}", details=[str(path)])
    return table


def read_parallel(paths: Sequence[Path], encoding: str = "utf-8") -> Table:
    """Plain files of the same name whose suffixes say what their lines are, such as train.en and train.de."""
    table = parallel({suffix_of(path)[1:]: (path.name, decode(path.name, _bytes(path), encoding)) for path in paths})
    if not table.rows:
        raise DataError(f"{table.file}: only blank lines")
    progress.note(f"{table.file}: read side by side, line by line; the columns are {', '.join(table.columns)}")
    return table


def suffix_of(path: Path) -> str:
    """The suffix that says what a file holds, in lower case: that before .gz, where it is compressed."""
    inner = path.with_suffix("") if path.suffix.lower() == GZIP else path
    return inner.suffix.lower()


def stem_of(path: Path) -> str:
    """The name without that suffix and .gz."""
    return (path.with_suffix("") if path.suffix.lower() == GZIP else path).stem


def _bytes(path: Path, unread: bool = False) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if path.suffix.lower() == GZIP:
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path.name} is not a gzip file, or is damaged: {error}") from None
    if not raw and not unread:
        raise DataError(f"{path.name} is empty (0 bytes)", details=[str(path)])
    return raw


def _unread(path: Path) -> DataError:
    return DataError(f'{path.name}: files called "*{suffix_of(path) or path.suffix}" are not read', mend=SAVE_AS)
