"""Text -> rows: one function a form of file, by its suffix in `FORMS`.

CSV and TSV follow RFC 4180 (quoted newlines, doubled quotes) with a header, or with the names that `data.header` gives; JSON is a list of
objects, `{"data": [...]}`, SQuAD, or the pieces of sentences by intent (Snips); JSONL is one object a line; Parquet needs nothing said;
CoNLL is described in `edgetune.data.conll`; plain text is a row a line. Nothing is guessed in silence: another delimiter, quotes that are
no quotes, or JSON under the other suffix is read and said.

The number of a row is where a person finds it: in CSV and TSV the line on which the record starts (the header is line 1), in JSONL and plain
text its line, in CoNLL the line on which the sentence starts, elsewhere its position from 1.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgetune import progress
from edgetune.data import conll, spans, squad
from edgetune.data.table import Bad, Table
from edgetune.errors import DataError

LONGEST_FIELD = 2**31 - 1  # characters; the csv module's own limit of 131,072 is too low for documents
DELIMITERS = {",": "a comma", "\t": "a tab", ";": "a semicolon"}

Header = tuple[str, ...]


def _csv(file: str, text: str, names: Header) -> Table:
    return _delimited(file, text, ",", names)


def _tsv(file: str, text: str, names: Header) -> Table:
    if not names and conll.looks_like(text):
        progress.note(f"{file} has a word and its tag a line and no header; read as CoNLL")
        return _conll(file, text, names)
    return _delimited(file, text, "\t", names)


def _delimited(file: str, text: str, delimiter: str, names: Header) -> Table:
    header_line = text.lstrip("\r\n").split("\n", 1)[0]
    if delimiter not in header_line:
        other = max(DELIMITERS, key=header_line.count)
        if other in header_line:
            progress.note(
                f"{file}: the {'first line' if names else 'header'} has no {DELIMITERS[delimiter][2:]}; read with {DELIMITERS[other]} between fields"
            )
            delimiter = other
    records = iter(_bare(file, text) if delimiter == "\t" else list(_records(file, text, delimiter)))
    header = names or tuple(name.strip() for name in next(records)[1])
    rows: list[tuple[int, dict[str, Any]]] = []
    bad: list[Bad] = []
    for line, fields in records:
        if len(fields) == len(header):
            rows.append((line, dict(zip(header, fields, strict=True))))
        else:
            bad.append(Bad(file, line, "the wrong number of fields", f"found {len(fields)} of {len(header)} fields"))
    return Table(file, header, rows, bad)


def _bare(file: str, text: str) -> list[tuple[int, list[str]]]:
    """The records of a file with tabs. Where quotes cannot be those of RFC 4180 and every line has as many tabs, they are characters."""
    try:
        return list(_records(file, text, "\t"))
    except DataError:
        plain = [(number, line.rstrip("\r").split("\t")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if len({len(fields) for _, fields in plain}) > 1 or len(plain[0][1]) == 1:
            raise
        progress.note(f"{file}: quotes are read as characters, since they do not enclose fields; every line has {len(plain[0][1])} fields")
        return plain


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


def _jsonl(file: str, text: str, names: Header = ()) -> Table:
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


def _json(file: str, text: str, names: Header = ()) -> Table:
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            progress.note(f"{file} is a JSON object a line; read as JSONL")
            return _jsonl(file, text)
        raise DataError(f"{file} is broken JSON: line {error.lineno:,}, column {error.colno:,}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is broken JSON: {error}") from None
    tree = _rows_of(tree)
    if not isinstance(tree, list):
        found = f"an object with {', '.join(list(tree)[:8])}" if isinstance(tree, dict) else type(tree).__name__
        raise DataError(f'{file} is neither a list of objects nor {{"data": [...]}}', details=[f"found {found}"])
    return _objects(file, list(enumerate(tree, 1)), [])


def _rows_of(tree: Any) -> Any:
    """The list of rows inside of a JSON document, where its layout is known; else the document."""
    if isinstance(tree, dict) and isinstance(tree.get("data"), list):
        tree = tree["data"]
        return squad.flatten(tree) or tree
    if isinstance(tree, dict) and tree and all(isinstance(part, list) and part for part in tree.values()):
        by_intent = [(intent, row) for intent, part in tree.items() for row in part]
        if all(isinstance(row, Mapping) and isinstance(row.get("data"), list) for _, row in by_intent):
            return [{**row, "intent": intent} for intent, row in by_intent]
    return tree


def _objects(file: str, rows: list[tuple[int, Any]], bad: list[Bad]) -> Table:
    good = [(number, _whole(row)) for number, row in rows if isinstance(row, dict)]
    bad = bad + [Bad(file, number, "no object", f"found {type(row).__name__}") for number, row in rows if not isinstance(row, dict)]
    columns: Counter[str] = Counter()
    for _, row in good:
        columns.update(row.keys())
    return Table(file, tuple(columns), good, sorted(bad, key=lambda b: b.row))


def _whole(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose `data` is a list of the pieces of a sentence -> the same with `text` and `spans` instead."""
    if not isinstance(row.get("data"), list) or "text" in row or (whole := spans.of_segments(row["data"])) is None:
        return row
    return {**whole, **{name: value for name, value in row.items() if name != "data"}}


def _conll(file: str, text: str, names: Header = ()) -> Table:
    rows, bad, columns = conll.read(file, text)
    if not conll.FEWEST <= columns <= conll.MOST:
        raise DataError(
            f"{file} is not CoNLL: most of its lines have {columns} column{'s' if columns > 1 else ''}",
            details=["a line is a word and its tag, with a tab or a blank between; at most two more columns between them"],
            mend="keep the column of words and the one of tags",
        )
    has_group = any("group" in row for _, row in rows)
    return Table(file, ("tokens", "tags", *(("group",) if has_group else ())), rows, [Bad(file, *one) for one in bad])


def _plain(file: str, text: str, names: Header = ()) -> Table:
    """A text a line; blank lines are none. Words with tags a line are CoNLL."""
    if conll.looks_like(text):
        progress.note(f"{file} has a word and its tag a line; read as CoNLL")
        return _conll(file, text)
    lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1)]
    return Table(file, ("text",), [(number, {"text": line}) for number, line in lines if line.strip()])


def parallel(files: Mapping[str, tuple[str, str]]) -> Table:
    """Plain files whose lines belong together: suffix -> (name, text). The columns are the suffixes; .src and .tgt are source and target."""
    columns = {suffix: {"src": "source", "tgt": "target"}.get(suffix, suffix) for suffix in files}
    parts = {columns[suffix]: text.removesuffix("\n").split("\n") for suffix, (_, text) in files.items()}
    if len({len(part) for part in parts.values()}) > 1:
        counts = ", ".join(f"{name} has {len(part):,} lines" for (name, _), part in zip(files.values(), parts.values(), strict=True))
        raise DataError(f"the lines of parallel files belong together, but {counts}", mend="mend the files: line by line the same")
    sides = [[line.rstrip("\r") for line in part] for part in parts.values()]
    rows = [(number, dict(zip(parts, row, strict=True))) for number, row in enumerate(zip(*sides, strict=True), 1)]
    return Table(" + ".join(name for name, _ in files.values()), tuple(parts), [(n, row) for n, row in rows if any(row.values())])


def _parquet(file: str, raw: bytes, names: Header = ()) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(raw))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is not a Parquet file, or is damaged: {str(error).splitlines()[0]}") from None
    described = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {})
    classes = {name: known for name, kind in features.items() if (known := _class_names(kind))}
    return Table(file, tuple(table.column_names), list(enumerate(table.to_pylist(), 1)), classes=classes)


def _class_names(kind: Any) -> list[str]:
    """The names behind the integers of a ClassLabel feature, or of a list of them, as `datasets` describes it; else none."""
    if isinstance(kind, list) and len(kind) == 1:
        return _class_names(kind[0])
    if not isinstance(kind, dict):
        return []
    return list(kind["names"]) if kind.get("_type") == "ClassLabel" else _class_names(kind.get("feature"))


Form = Callable[[str, Any, Header], Table]
FORMS: dict[str, Form] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".txt": _plain,
    **dict.fromkeys(conll.SUFFIXES, _conll),
}
BYTES = (".parquet",)  # forms that are no text
WITH_HEADER = (".csv", ".tsv")
