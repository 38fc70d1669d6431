"""Bytes -> text, in the encoding that the recipe names; never guessed in silence."""

from __future__ import annotations

import codecs
import re
import unicodedata

from edgetune import progress
from edgetune.data.table import lines
from edgetune.errors import DataError, did_you_mean

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
SAMPLE = 20_000  # bytes on either side of the first that is not in the encoding
SAVE_AS = "save it as CSV (UTF-8), TSV, JSON, JSONL or Parquet"


def decode(file: str, raw: bytes, encoding: str) -> str:
    """The text of a file. Raises DataError for what is no text, or in another encoding, with the byte and the line."""
    kind = next((name for magic, name in BINARY.items() if raw.startswith(magic)), None)
    if kind:
        raise _binary(file, raw, kind)
    try:
        if codecs.lookup(encoding).name == "utf-8" and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(f"{file} is UTF-16, not UTF-8 (it starts with a UTF-16 byte-order mark)", mend="--set data.encoding=utf-16")
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        mended = _cesu8(file, raw, error) if codecs.lookup(encoding).name == "utf-8" else None
        if mended is None:
            raise (_binary(file, raw) if _looks_binary(raw) else _not_in(file, raw, encoding, error)) from None
        text = mended
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


def _cesu8(file: str, raw: bytes, error: UnicodeDecodeError) -> str | None:
    """UTF-8 in which characters beyond U+FFFF are written as the two halves of UTF-16 (CESU-8, Unicode report 26); None when it is not that."""
    try:
        halves = raw.decode("utf-8", "surrogatepass")
        text = halves.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeError:
        return None
    count, line = len(halves) - len(text), raw.count(b"\n", 0, error.start) + 1
    what = f"{count:,} character{'s' if count > 1 else ''} beyond U+FFFF"
    progress.warn(f"{file} is CESU-8, not UTF-8: {what} in two halves (first on line {line:,}); read as the characters they stand for")
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
    other, language = _not_latin(raw, error.start) or ("cp1252" if _decodes(raw, "cp1252") else "latin-1", "Western European")
    return DataError(what, details=[f"it can be read as {other} ({language})"], mend=f"--set data.encoding={other}, or save it as UTF-8")


def _not_latin(raw: bytes, at: int) -> tuple[str, str] | None:
    """(encoding, language) of a text of another script, told from the bytes around `at`; None for Latin letters, whose encodings look alike."""
    from charset_normalizer import from_bytes

    start = raw.rfind(b"\n", 0, max(0, at - SAMPLE)) + 1
    best = from_bytes(raw[start : at + SAMPLE]).best()
    if best is None or best.language == "Unknown" or not _decodes(raw, best.encoding):
        return None
    letters = [character for character in str(best) if character.isalpha() and not character.isascii()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    return (best.encoding, best.language) if letters and latin * 2 < len(letters) else None


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
