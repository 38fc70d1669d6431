"""Each kind of bad input gets one error that says what, where, and how to mend it (`refused` checks exit 2 and 20 lines)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune.data.read import read

Refused = Callable[..., str]
LoadedText = Callable[..., Any]
Folder = Callable[..., Path]
GOOD = "text,label\nhello there,greet\ngood day,greet\ngoodbye,leave\nsee you,leave\n"
DROP = "--set data.on_bad_row=drop"


@pytest.fixture
def one(folder: Folder) -> Callable[..., Path]:
    def write(content: str | bytes, name: str = "rows.csv") -> Path:
        return folder(**{name: content}) / name

    return write


# -- the file as a whole


def test_empty_file(one: Any, refused: Refused) -> None:
    assert "rows.csv is empty (0 bytes)" in refused(one(b""))
    assert "rows.csv is empty (only blank lines)" in refused(one("\n\n  \n"))
    assert "rows.parquet is empty (0 bytes)" in refused(one(b"", "rows.parquet"))


@pytest.mark.parametrize(
    ("name", "content"), [("rows.csv", "text,label\n"), ("rows.tsv", "text\tlabel"), ("rows.csv", "\ufefftext,label\r\n\r\n")]
)
def test_header_only(one: Any, refused: Refused, name: str, content: str) -> None:
    assert f"{name} has a header and no rows" in refused(one(content, name))


@pytest.mark.parametrize("content", ["[]", '{"data": []}'])
def test_empty_json_list(one: Any, refused: Refused, content: str) -> None:
    assert "rows.json has no rows" in refused(one(content, "rows.json"))


def test_nul_bytes_are_named_by_line(one: Any, refused: Refused) -> None:
    said = refused(one(GOOD.replace("good day", "good\0 d\0ay").replace("see", "s\0ee")))
    assert "rows.csv holds NUL bytes (lines 3, 5)" in said
    assert "data.encoding=utf-16" in said


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\x03\x04" + bytes(range(256)), "a zip or Excel file"),
        (b"\x1f\x8b\x08" + bytes(100), "a gzip file"),
        (b"PAR1" + bytes(100), "a Parquet file"),
        (bytes(range(256)) * 20, "a binary file"),
        (bytes(1000), "a binary file"),
        (b"\x7fELF\x02\x01\x01" + bytes(57) + bytes(range(1, 200)), "a binary file"),
    ],
)
def test_binary_file(one: Any, refused: Refused, content: bytes, kind: str) -> None:
    said = refused(one(content))
    assert f"rows.csv is not text: it looks like {kind}" in said
    assert "save it as CSV" in said


def test_parquet_that_is_none(one: Any, refused: Refused) -> None:
    assert "rows.parquet is not a Parquet file, or is damaged" in refused(one(GOOD, "rows.parquet"))


def test_truncated_parquet(tmp_path: Path, refused: Refused) -> None:
    import pyarrow
    import pyarrow.parquet

    whole = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"] * 50, "label": ["b"] * 50}), whole)
    (tmp_path / "rows.parquet").write_bytes(whole.getvalue()[:-20])
    assert "rows.parquet is not a Parquet file, or is damaged" in refused(tmp_path / "rows.parquet")


def test_not_utf8_names_the_byte_and_an_encoding_that_works(one: Any, refused: Refused, loaded: LoadedText) -> None:
    path = one((GOOD * 2).replace("good day", "caf\u00e9").encode("cp1252"))
    said = refused(path)
    assert "rows.csv is not UTF-8: byte 0xe9 at offset 32 (line 3)" in said
    assert "--set data.encoding=cp1252" in said
    found, _ = loaded(one(crowd().replace("text 3", "caf\u00e9").encode("cp1252")), **{"data.encoding": "cp1252"})
    assert any(row["text"] == "caf\u00e9" for row in found.splits["train"] + found.splits["validation"] + found.splits["test"])


def test_bytes_that_cp1252_lacks_are_offered_as_latin_1(one: Any, refused: Refused) -> None:
    assert "--set data.encoding=latin-1" in refused(one(GOOD.encode() + b"na\x81ve \xe9,leave\n"))


@pytest.mark.parametrize(
    ("encoding", "sentence", "said"),
    [
        ("gb18030", "今天天气很好，我们去公园散步。", "gb18030 (Chinese)"),
        ("shift_jis", "今日は天気がいいので、公園を散歩しましょう。", "cp932 (Japanese)"),
        ("koi8-r", "Сегодня хорошая погода и мы идём гулять в парк.", "koi8_r (Russian)"),
    ],
)
def test_other_scripts_are_offered_their_own_encoding(
    one: Any, refused: Refused, loaded: LoadedText, encoding: str, sentence: str, said: str
) -> None:
    content = "text,label\n" + "".join(f"{sentence} {i},{'ab'[i % 2]}\n" for i in range(40))
    path = one(content.encode(encoding))
    error = refused(path)
    assert f"it can be read as {said}" in error
    name = said.split()[0]
    assert f"--set data.encoding={name}" in error
    found, _ = loaded(path, **{"data.encoding": name})
    assert found.splits["train"][0]["text"].startswith(sentence)


def test_one_broken_byte_in_utf8_is_damage_and_no_other_encoding(one: Any, refused: Refused) -> None:
    said = refused(one(GOOD.encode() + "Grüße für Jürgen,greet\n".encode() + b"caf\xe9,greet\n"))
    assert "4 other characters beyond ASCII are right and 1 is broken" in said
    assert "mend line 7" in said
    assert "data.encoding" not in said


def test_utf16_is_named(one: Any, refused: Refused, loaded: LoadedText) -> None:
    assert "--set data.encoding=utf-16" in refused(one(GOOD.encode("utf-16")))
    found, _ = loaded(one(crowd().encode("utf-16")), **{"data.encoding": "utf-16"})
    assert found.facts["read"] == 60


def test_wrong_encoding_asked_for(one: Any, refused: Refused) -> None:
    assert 'unknown encoding "utf-9" (did you mean "utf-8"?)' in refused(one(GOOD), **{"data.encoding": "utf-9"})
    said = refused(one("text,label\ncafé,x\n"), **{"data.encoding": "ascii"})
    assert "byte 0xc3 at offset 14 (line 2)" in said
    assert "leave data.encoding out" in said


def test_quote_never_closed(one: Any, refused: Refused) -> None:
    said = refused(one(GOOD + '"hello,greet\nanother,leave\n'))
    assert "rows.csv: a quote opened on line 6 is never closed" in said


def test_text_after_a_closing_quote(one: Any, refused: Refused) -> None:
    said = refused(one('text,label\n"a\nb" he said,greet\n'))
    assert "rows.csv, line 3: text follows a closing quote (in the row that starts on line 2)" in said
    assert '"say ""hi"""' in said


@pytest.mark.parametrize(("content", "place"), [('[{"text": "a"},\n {"text" "b"}]', "line 2, column 10"), ("[" * 100_000, "")])
def test_broken_json_file(one: Any, refused: Refused, content: str, place: str) -> None:
    said = refused(one(content, "rows.json"))
    assert "rows.json is broken JSON" in said
    assert place in said


def test_json_of_another_shape(one: Any, refused: Refused) -> None:
    said = refused(one('{"rows": [], "version": 1}', "rows.json"))
    assert 'neither a list of objects nor {"data": [...]}' in said
    assert "rows, version" in said


# -- the path


def test_missing_path_suggests_a_sibling(folder: Folder, refused: Refused) -> None:
    path = folder(**{"banking.csv": GOOD})
    assert '(did you mean "banking.csv"?)' in refused(path / "bankng.csv")
    (path / "data").mkdir()
    said = refused(path / "dta" / "train.csv")
    assert '(did you mean "data"?)' in said
    assert 'there is no "dta"' in said


def test_no_path(refused: Refused) -> None:
    assert "no data given" in refused("")


def test_unread_suffix(one: Any, refused: Refused) -> None:
    said = refused(one(GOOD, "rows.xlsx"))
    assert 'rows.xlsx: files called "*.xlsx" are not read' in said
    assert "CSV" in said


def test_folder_without_train(folder: Folder, refused: Refused) -> None:
    said = refused(folder(**{"banking_train.csv": GOOD, "test.csv": GOOD}))
    assert "has no train file" in said
    assert "found test.csv, banking_train.csv" in said


def test_two_files_for_one_split(folder: Folder, refused: Refused) -> None:
    said = refused(folder(**{"train.csv": GOOD, "train_full.csv": GOOD}))
    assert "has 2 files for the train split: train.csv, train_full.csv" in said


def test_hub_out_of_reach(refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    def offline(name: str) -> None:
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "bank.d").mkdir()
    monkeypatch.setattr(datasets, "load_dataset", offline)
    for name in ("owner/name", "bank_d"):
        said = refused(name)
        assert "Couldn't reach" in said
        assert "needs network" in said
    assert 'did you mean "bank.d"?' in said


# -- rows


def crowd(more: str = "") -> str:
    """A CSV of 60 good rows (lines 2 to 61), two labels, and `more`."""
    return "text,label\n" + "".join(f"text {i},{'odd' if i % 2 else 'even'}\n" for i in range(60)) + more


@pytest.mark.parametrize(
    ("more", "said", "example"),
    [
        (",odd\n", "1 of 61 rows in rows.csv has no text (row 62)", 'text = "text", label = "label"'),
        ("a b,\nc d, \n", "2 of 62 rows in rows.csv have no label (rows 62, 63)", "needs a text and a label"),
        (",\n", "1 of 61 rows in rows.csv has no text and no label (row 62)", ""),
        (
            "yes, please,odd\nlonely\n",
            "2 of 62 rows in rows.csv have the wrong number of fields (rows 62, 63)",
            "row 62: found 3 of 2 fields",
        ),
        ("x,\n" * 9, "9 of 69 rows in rows.csv have no label (rows 62, 63, 64, 65, 66 and 4 more)", ""),
    ],
)
def test_bad_rows_are_refused_together_or_dropped_on_purpose(
    one: Any, refused: Refused, loaded: LoadedText, more: str, said: str, example: str
) -> None:
    path = one(crowd(more))
    error = refused(path)
    assert error.startswith(said + "\n")
    assert example in error
    assert DROP in error
    found, notes = loaded(path, **{"data.on_bad_row": "drop"})
    count = int(said.split()[0])
    assert f"{count} rows dropped" in notes
    assert [entry["row"] for entry in found.facts["dropped"]] == list(range(62, 62 + count))
    assert {entry["reason"] for entry in found.facts["dropped"]} == {said.split(" has ")[-1].split(" have ")[-1].split(" (")[0]}
    assert sum(found.facts["rows"].values()) == 60


def test_kinds_of_problems_are_listed_file_by_file(folder: Folder, refused: Refused) -> None:
    path = folder(**{"train.csv": crowd(",odd\na b,\nx,y,z\n"), "test.csv": GOOD.replace("hello there", "") + "e f,odd\n"})
    said = refused(path)
    assert said.startswith("7 of 68 rows cannot be used\n1 of 63 rows in train.csv has no text (row 62)\n")
    assert "1 of 63 rows in train.csv has the wrong number of fields (row 64)" in said
    assert "1 of 5 rows in test.csv has no text (row 2)" in said
    assert "3 of 5 rows in test.csv have a label never seen in train (rows 3, 4, 5)" in said
    assert DROP in said


def test_unseen_label(folder: Folder, refused: Refused, loaded: LoadedText) -> None:
    path = folder(**{"train.csv": crowd(), "test.csv": "text,label\na b,odd\nc d,evn\n"})
    said = refused(path)
    assert said.startswith("1 of 2 rows in test.csv has a label never seen in train (row 3)\n")
    assert 'row 3: label "evn" (did you mean "even"?)' in said
    found, _ = loaded(path, **{"data.on_bad_row": "drop"})
    assert found.facts["dropped"] == [{"file": "test.csv", "row": 3, "reason": "a label never seen in train"}]


def test_nothing_left_after_dropping(folder: Folder, refused: Refused) -> None:
    path = folder(**{"train.csv": crowd(), "test.csv": "text,label\nc d,other\n"})
    assert "no usable row is left in test" in refused(path, **{"data.on_bad_row": "drop"})
    assert "2 of 2 rows in all.csv have no label" in refused(
        folder(**{"all.csv": "text,label\na,\nb,\n"}) / "all.csv", **{"data.on_bad_row": "drop"}
    )


def test_one_class_only(one: Any, refused: Refused) -> None:
    assert 'train has one class only ("greet", 2 rows)' in refused(one("text,label\na,greet\nb,greet\n"))
    said = refused(one("text,label\na,greet\nb,greet\nc,oos\n"))
    assert 'train has one class only ("greet", 2 rows)' in said
    assert 'rows labelled "oos" count as no class' in said


def test_too_few_rows_to_cut(one: Any, refused: Refused) -> None:
    assert "too few rows to cut a test split from train (2 rows)" in refused(one("text,label\na,greet\nb,leave\n"))


def test_broken_json_lines(one: Any, refused: Refused, loaded: LoadedText) -> None:
    lines = [json.dumps({"text": f"text {i}", "label": i % 2}) for i in range(40)]
    lines[2] = '{"text": "a" "label": 1}'
    lines[6] = "[1, 2]"
    path = one("\n".join(lines) + "\n\n", "rows.jsonl")
    said = refused(path)
    assert "1 of 40 rows in rows.jsonl has broken JSON (row 3)" in said
    assert "row 3: column 14: Expecting ',' delimiter" in said
    assert "1 of 40 rows in rows.jsonl has no object (row 7)" in said
    found, _ = loaded(path, **{"data.on_bad_row": "drop"})
    assert [entry["row"] for entry in found.facts["dropped"]] == [3, 7]
    assert found.facts["labels"] == ["0", "1"]


def test_all_lines_broken(one: Any, refused: Refused) -> None:
    assert "3 of 3 rows in rows.jsonl have broken JSON (rows 1, 2, 3)" in refused(one("{\n" * 3, "rows.jsonl"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "a"}, "no label"),
        ({"text": "a", "label": None}, "no label"),
        ({"text": "a", "label": float("nan")}, "no label"),
        ({"text": "a", "label": ["x", "y"]}, "several labels"),
        ({"text": {"en": "a"}, "label": "x"}, "a text that is no string"),
        ({"text": "\ud83d", "label": "x"}, "a text that is not valid Unicode"),
    ],
)
def test_json_values_that_are_no_text(one: Any, refused: Refused, row: dict[str, Any], reason: str) -> None:
    rows = [{"text": "b", "label": "x"}, row]
    assert refused(one(json.dumps(rows), "rows.json")).startswith(f"1 of 2 rows in rows.json has {reason} (row 2)")


def test_very_long_labels_do_not_flood_the_error(folder: Folder, refused: Refused) -> None:
    refused(folder(**{"train.csv": crowd(), "test.csv": "text,label\n" + f"a,{'x' * 100_000}\n" * 50}))


# -- accepted


def test_byte_order_mark_is_skipped_and_said(one: Any, loaded: LoadedText) -> None:
    for name, content in (("rows.csv", crowd()), ("rows.json", json.dumps([{"text": f"t {i}", "label": i % 2} for i in range(60)]))):
        found, notes = loaded(one(b"\xef\xbb\xbf" + content.encode(), name))
        assert found.facts["columns"] == {"text": "text", "label": "label"}
        assert f"{name} starts with a byte-order mark" in notes


def test_long_rows_and_quoted_newlines(one: Any, loaded: LoadedText) -> None:
    long = "word " * 40_000
    found, _ = loaded(one(crowd(f'"{long}",odd\n"two\r\nlines, ""quoted""",even\nlast,odd\n')))
    rows = {row["row"]: row["text"] for split in found.splits.values() for row in split}
    assert rows[62] == long
    assert rows[63] == 'two\r\nlines, "quoted"'
    assert rows[65] == "last"


@pytest.mark.parametrize(("delimiter", "name"), [(";", "a semicolon"), ("\t", "a tab")])
def test_other_delimiters_in_a_csv_are_said(one: Any, loaded: LoadedText, delimiter: str, name: str) -> None:
    found, notes = loaded(one(crowd().replace(",", delimiter)))
    assert sum(found.facts["rows"].values()) == 60
    assert f"rows.csv: the header has no comma; read with {name} between fields" in notes


def test_blank_lines_are_said(one: Any, loaded: LoadedText) -> None:
    found, notes = loaded(one(crowd("\n\nlast one,odd\n\n")))
    assert "rows.csv: 3 blank lines skipped" in notes
    assert found.facts["read"] == 61


def test_json_under_the_other_suffix_is_read_and_said(one: Any) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    assert [row for _, row in read(one(lines, "rows.json")).rows] == rows
    assert [row for _, row in read(one(json.dumps(rows), "rows.jsonl")).rows] == rows
