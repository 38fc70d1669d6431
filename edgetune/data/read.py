"""One file -> its rows, or an error that names the place.

CSV and TSV follow RFC 4180 (quoted newlines, doubled quotes) with a header; JSON is a list of objects or `{"data": [...]}`;
JSONL is one object a line; Parquet needs nothing said. Nothing is guessed in silence: a byte-order mark, another delimiter, or JSON
under the other suffix is read and said.

The number of a row is where a person finds it: in CSV and TSV the line on which the record starts (the header is line 1), in JSONL
its line, elsewhere its position from 1.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetune import progress
from edgetune.errors import DataError, did_you_mean

LONGEST_FIELD = 2**31 - 1  # characters; the csv module's own limit of 131,072 is too low for documents
DELIMITERS = {",": "a comma", "\t": "a tab", ";": "a semicolon"}
BINARY = {
    b"PK\x03\x04": "a zip or Excel file",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"\x1f\x8b": "a gzip file",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"%PDF": "a PDF",
    b"SQLite": "a SQLite database",
    b"\x89PNG": "a PNG image",
}
SAVE_AS = "save it as CSV (UTF-8), TSV, JSON, JSONL or Parquet"


@dataclass(frozen=True)
class Bad:
    """A row that cannot be used. `reason` completes "the row has ..."; `detail` says more about this very row."""

    file: str
    row: int
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """The rows of one file, each with its number; `bad` are those that could not be read. `classes`: names behind integer labels."""

    file: str
    columns: tuple[str, ...]
    rows: list[tuple[int, dict[str, Any]]]
    bad: list[Bad] = field(default_factory=list)
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def read(self) -> int:
        return len(self.rows) + len(self.bad)


def read(path: Path, encoding: str = "utf-8") -> Table:
    """Every row of `path`. Raises DataError when the file as a whole cannot be read: empty, binary, in another encoding, ..."""
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise DataError(f'{path.name}: files called "*{path.suffix}" are not read', mend=SAVE_AS)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if not raw:
        raise DataError(f"{path.name} is empty (0 bytes)", details=[str(path)])
    if form is _parquet:
        table = _parquet(path.name, raw)
    else:
        text = _decode(path.name, raw, encoding)
        if not text.strip():
            raise DataError(f"{path.name} is empty (only blank lines)", details=[str(path)])
        table = form(path.name, text)
    if not table.read:
        has = "a header and no rows" if table.columns else "no rows"
        raise DataError(f"{path.name} has {has}", details=[str(path)])
    return table


def lines(count: int, numbers: Sequence[int], word: str = "row") -> str:
    """'rows 17, 502, 9,988', or the first five 'and 12 more'."""
    shown = ", ".join(f"{n:,}" for n in numbers[:5])
    more = f" and {count - 5:,} more" if count > 5 else ""
    return f"{word}{'s' if count > 1 else ''} {shown}{more}"


# -- bytes -> text


def _decode(file: str, raw: bytes, encoding: str) -> str:
    kind = next((name for magic, name in BINARY.items() if raw.startswith(magic)), None)
    if kind:
        raise _binary(file, raw, kind)
    try:
        if codecs.lookup(encoding).name == "utf-8" and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(f"{file} is UTF-16, not UTF-8 (it starts with a UTF-16 byte-order mark)", mend="--set data.encoding=utf-16")
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise (_binary(file, raw) if _looks_binary(raw) else _not_in(file, raw, encoding, error)) from None
    except LookupError:
        known = ("utf-8", "utf-16", "cp1252", "latin-1", "shift_jis", "gb18030", "big5", "euc-kr", "koi8-r")
        raise DataError(
            f'unknown encoding "{encoding}"{did_you_mean(encoding, known)}',
            mend=f"--set data.encoding=ENCODING, such as {', '.join(known)}",
        ) from None
    if text.startswith("\ufeff"):
        progress.note(f"{file} starts with a byte-order mark; it was skipped")
        text = text[1:]
    if "\0" in text:
        if _looks_binary(raw):
            raise _binary(file, raw)
        at = sorted({text.count("\n", 0, hit.start()) + 1 for hit in re.finditer("\0", text)})
        raise DataError(
            f"{file} holds NUL bytes ({lines(len(at), at, 'line')})",
            details=["text never does: the file was damaged, or is in another encoding (UTF-16 is full of them)"],
            mend="write the file again from its source, or name its encoding:  --set data.encoding=utf-16",
        )
    return text


def _looks_binary(raw: bytes) -> bool:
    """Over 2 % of control characters that text does not use, or mostly NUL, in the first 64 kB."""
    start = raw[:65536]
    control = len(start) - len(start.translate(None, bytes(c for c in range(1, 32) if c not in b"\t\n\r\f\x1b")))
    return control > len(start) / 50 or start.count(0) > len(start) * 0.6


def _binary(file: str, raw: bytes, kind: str = "a binary file") -> DataError:
    begins = " ".join(f"{byte:02x}" for byte in raw[:4])
    return DataError(f"{file} is not text: it looks like {kind} (it begins with the bytes {begins})", mend=SAVE_AS)


def _not_in(file: str, raw: bytes, encoding: str, error: UnicodeDecodeError) -> DataError:
    line = raw.count(b"\n", 0, error.start) + 1
    what = f"{file} is not {encoding.upper()}: byte 0x{raw[error.start]:02x} at offset {error.start:,} (line {line:,})"
    if _decodes(raw, "utf-8"):
        return DataError(what, details=["it is valid UTF-8"], mend="leave data.encoding out")
    lenient = raw.decode(encoding, errors="replace")
    wrong = lenient.count("\ufffd")
    right = sum(not character.isascii() for character in lenient) - wrong
    if right > wrong:
        are = "is" if wrong == 1 else "are"
        return DataError(
            what,
            details=[f"{right:,} other characters beyond ASCII are right and {wrong:,} {are} broken: damage, not another encoding"],
            mend=f"mend line {line:,}, or take it out",
        )
    other = "cp1252" if _decodes(raw, "cp1252") else "latin-1"
    return DataError(
        what, details=[f"it can be read as {other} (Western European)"], mend=f"--set data.encoding={other}, or save it as UTF-8"
    )


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


# -- text -> rows


def _csv(file: str, text: str) -> Table:
    return _delimited(file, text, ",")


def _tsv(file: str, text: str) -> Table:
    return _delimited(file, text, "\t")


def _delimited(file: str, text: str, delimiter: str) -> Table:
    header_line = text.lstrip("\r\n").split("\n", 1)[0]
    if delimiter not in header_line:
        other = max(DELIMITERS, key=header_line.count)
        if other in header_line:
            progress.note(f"{file}: the header has no {DELIMITERS[delimiter][2:]}; read with {DELIMITERS[other]} between fields")
            delimiter = other
    records = _records(file, text, delimiter)
    header = tuple(name.strip() for name in next(records)[1])
    rows: list[tuple[int, dict[str, Any]]] = []
    bad: list[Bad] = []
    for line, fields in records:
        if len(fields) == len(header):
            rows.append((line, dict(zip(header, fields, strict=True))))
        else:
            bad.append(Bad(file, line, "the wrong number of fields", f"found {len(fields)} of {len(header)} fields"))
    return Table(file, header, rows, bad)


def _records(file: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which it starts, fields) of every record; blank lines are none and are said."""
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start, blank = 1, 0
    try:
        for fields in reader:
            if fields:
                yield start, fields
            else:
                blank += 1
            start = reader.line_num + 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            what = f"{file}: a quote opened on line {start:,} is never closed"
        else:
            what = f"{file}, line {reader.line_num:,}: text follows a closing quote (in the row that starts on line {start:,})"
        raise DataError(
            what,
            details=["where the row ends cannot be known, so nothing after it can be read"],
            mend='write a quote inside quotes twice: "say ""hi"""',
        ) from None
    if blank:
        progress.note(f"{file}: {blank:,} blank line{'s' if blank > 1 else ''} skipped")


def _jsonl(file: str, text: str) -> Table:
    if text.lstrip().startswith("["):
        progress.note(f"{file} is one JSON list, not a JSON object a line; read as JSON")
        return _json(file, text)
    rows: list[tuple[int, Any]] = []
    bad: list[Bad] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append((number, json.loads(line)))
        except json.JSONDecodeError as error:
            bad.append(Bad(file, number, "broken JSON", f"column {error.colno}: {error.msg}"))
        except (ValueError, RecursionError) as error:
            bad.append(Bad(file, number, "broken JSON", str(error)))
    return _objects(file, rows, bad)


def _json(file: str, text: str) -> Table:
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            progress.note(f"{file} is a JSON object a line; read as JSONL")
            return _jsonl(file, text)
        raise DataError(f"{file} is broken JSON: line {error.lineno:,}, column {error.colno:,}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is broken JSON: {error}") from None
    if isinstance(tree, dict) and isinstance(tree.get("data"), list):
        tree = tree["data"]
    if not isinstance(tree, list):
        found = f"an object with {', '.join(list(tree)[:8])}" if isinstance(tree, dict) else type(tree).__name__
        raise DataError(f'{file} is neither a list of objects nor {{"data": [...]}}', details=[f"found {found}"])
    return _objects(file, list(enumerate(tree, 1)), [])


def _objects(file: str, rows: list[tuple[int, Any]], bad: list[Bad]) -> Table:
    good = [(number, row) for number, row in rows if isinstance(row, dict)]
    bad = bad + [Bad(file, number, "no object", f"found {type(row).__name__}") for number, row in rows if not isinstance(row, dict)]
    columns: Counter[str] = Counter()
    for _, row in good:
        columns.update(row.keys())
    return Table(file, tuple(columns), good, sorted(bad, key=lambda b: b.row))


def _parquet(file: str, raw: bytes) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(raw))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is not a Parquet file, or is damaged: {str(error).splitlines()[0]}") from None
    described = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {})
    classes = {name: kind["names"] for name, kind in features.items() if isinstance(kind, dict) and kind.get("_type") == "ClassLabel"}
    return Table(file, tuple(table.column_names), list(enumerate(table.to_pylist(), 1)), classes=classes)


FORMS: dict[str, Callable[[str, Any], Table]] = {".csv": _csv, ".tsv": _tsv, ".json": _json, ".jsonl": _jsonl, ".parquet": _parquet}
