"""Where the rows are: a file, a folder of split files, or a data set of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgetune import progress
from edgetune.artifact import file_digest
from edgetune.data import together
from edgetune.data.forms import FORMS
from edgetune.data.read import read, read_parallel, stem_of, suffix_of
from edgetune.data.table import Table
from edgetune.errors import DataError, did_you_mean
from edgetune.sections import DataKeys

SPLITS = ("train", "validation", "test")
_SPLIT = re.compile(r"(?:(train|training)|(validation|valid|val|dev)|(test))(?![a-z])", re.IGNORECASE)
_SHARD = re.compile(r"-\d+-of-\d+$")
_PLAIN = ".txt"  # a split with another file has no use for one: it is a note, a list of words, ...
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+|[\w-]+")


Part = tuple[Path, ...]  # one file, or parallel files


def tables(keys: DataKeys) -> tuple[dict[str, list[Table]], list[str]]:
    """The tables of each split that `keys.path` has, and the names of what was ignored. A single file is `train`; see `together` for several
    data sets.

    Raises DataError when there is nothing at the path, or no train split.
    """
    if sets := data_sets(keys):
        return together.joined({name: tables(own)[0] for name, own in sets.items()}, keys), []
    found, ignored = _local(keys)
    if found is None:
        return _hub(keys.path)
    if ignored:
        progress.note(f"ignored in {keys.path}: {', '.join(ignored)}")
    return {split: [together.as_one(_read(part, keys), keys.tasks) for part in parts] for split, parts in found.items()}, ignored


def digests(keys: DataKeys) -> dict[str, str]:
    """sha256 of every local file that `keys` names, by path; empty for a data set of the hub."""
    if sets := data_sets(keys):
        return {path: digest for own in sets.values() for path, digest in digests(own).items()}
    found, _ = _local(keys)
    return {str(path): file_digest(path) for parts in (found or {}).values() for part in parts for path in part}


def table(place: str, key: str, keys: DataKeys) -> Table:
    """The table of one file, or of parallel files, that `key` of the recipe names. Raises DataError when it is not there or is a folder."""
    return together.as_one(_read(_one(place, key), keys), keys.tasks)


def file_digests(place: str, key: str) -> list[str]:
    """sha256 of what `table` reads."""
    return [file_digest(path) for path in _one(place, key)]


def _one(place: str, key: str) -> Part:
    path = Path(place).expanduser()
    part = _part(path)
    if part is None:
        raise _missing(path, key)
    if path.is_dir():
        raise DataError(f"{path} is a folder ({key})", mend="give one of its files")
    return part


def _read(part: Part, keys: DataKeys) -> Table:
    header = tuple(name.strip() for name in keys.header.split(",")) if keys.header else ()
    return read(part[0], keys.encoding, header) if len(part) == 1 else read_parallel(part, keys.encoding)


def data_sets(keys: DataKeys) -> dict[str, DataKeys]:
    """Several data sets, each a task, by their names: the folders with a train file in a folder that has no split file of its own."""
    path = Path(keys.path).expanduser()
    if not keys.path or not path.is_dir():
        return {}
    content = _content(path)
    found = [one for one in content if one.is_dir() and any(split_of(part.name) == "train" for part in _content(one))]
    if len(found) < 2 or any(one.is_file() and split_of(one.name) for one in content):
        return {}
    return {one.name: keys.model_copy(update={"path": str(one)}) for one in found}


def split_of(name: str) -> str | None:
    """train, validation or test for a name such as `train.csv`, `dev-2.tsv` or `test-00000-of-00001.parquet`."""
    match = _SPLIT.match(name)
    return SPLITS[(match.lastindex or 1) - 1] if match else None


def _local(keys: DataKeys) -> tuple[dict[str, list[Part]] | None, list[str]]:
    """The files of each split; None for a name of the hub."""
    if not keys.path:
        forms = "a CSV, TSV, JSON, JSONL, Parquet, CoNLL or text file, a folder of train/validation/test files, or a hub id"
        raise DataError("no data given", mend=f"--data {forms}")
    path = Path(keys.path).expanduser()
    beside = {split: name for split, name in (("validation", keys.validation), ("test", keys.test)) if name}
    if path.is_dir():
        found, ignored = _folder(path)
        if beside:
            raise DataError(
                f"{path} is a folder, whose files are its splits, and data.{next(iter(beside))} names another file",
                mend=f"give the file of the training rows as --data, such as {found['train'][0][0]}",
            )
        return found, ignored
    part = _part(path)
    if part is None:
        if _HUB_ID.fullmatch(keys.path) and suffix_of(path) not in FORMS and not (len(path.parts) > 1 and path.parent.exists()):
            return None, []
        raise _missing(path, "--data")
    parts = {"train": [part]}
    for split, name in beside.items():
        one = _part(Path(name).expanduser())
        if one is None:
            raise _missing(Path(name).expanduser(), f"data.{split}")
        parts[split] = [one]
    return {split: parts[split] for split in SPLITS if split in parts}, []


def _part(path: Path) -> Part | None:
    """The file at `path`; or the parallel files whose name without suffix it is, such as train.en and train.de for `train`."""
    if path.is_file() and suffix_of(path) in FORMS:
        return (path,)
    sides = _sides(path.parent).get(stem_of(path) if path.is_file() else path.name, ())
    if len(sides) > 1 and (not path.exists() or path in sides):
        return sides
    return (path,) if path.exists() else None


def _sides(folder: Path) -> dict[str, Part]:
    """Files of unknown suffixes in `folder`, by their name without suffix."""
    found: dict[str, list[Path]] = {}
    for path in _content(folder) if folder.is_dir() else ():
        if path.is_file() and suffix_of(path) and suffix_of(path) not in FORMS:
            found.setdefault(stem_of(path), []).append(path)
    return {stem: tuple(paths) for stem, paths in found.items()}


def _content(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}") from None


def _folder(folder: Path) -> tuple[dict[str, list[Part]], list[str]]:
    found: dict[str, list[Part]] = {}
    content = _content(folder)
    for path in content:
        if path.is_file() and suffix_of(path) in FORMS and (split := split_of(path.name)):
            found.setdefault(split, []).append((path,))
    for split, parts in found.items():
        found[split] = [part for part in parts if suffix_of(part[0]) != _PLAIN] or parts
    if "train" not in found:
        found = _beside(folder) or found
    used = {path for parts in found.values() for part in parts for path in part}
    ignored = [f"{path.name}/" if path.is_dir() else path.name for path in content if path not in used]
    for split, parts in found.items():
        if len({(_SHARD.sub("", stem_of(part[0])), suffix_of(part[0])) for part in parts}) > 1:
            names = [" + ".join(path.name for path in part) for part in parts]
            raise DataError(
                f"{folder} has {len(parts)} files for the {split} split: {', '.join(names)}",
                details=["one may be a part or a copy of another, so they are not put together"],
                mend=f"keep one of them in the folder, called {split}{suffix_of(parts[0][0])}",
            )
    if "train" not in found:
        names = [*(path.name for parts in found.values() for part in parts for path in part), *ignored]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        raise DataError(
            f"{folder} has no train file",
            details=[f"found {', '.join(names[:8])}{more}" if names else "the folder is empty"],
            mend="call the files train.csv, validation.csv and test.csv (or .tsv, .json, .jsonl, .parquet, .conll, .txt), or give one file as "
            "--data, and the others as data.validation and data.test",
        )
    return {split: found[split] for split in SPLITS if split in found}, ignored


def _beside(folder: Path) -> dict[str, list[Part]]:
    """Parallel files of each split; every split has the suffixes that train has."""
    by_split: dict[str, list[Part]] = {}
    for stem, sides in _sides(folder).items():
        if len(sides) > 1 and (split := split_of(stem)):
            by_split.setdefault(split, []).append(sides)
    suffixes = {frozenset(map(suffix_of, sides)) for sides in by_split.get("train", ())}
    found = {split: [part for part in parts if frozenset(map(suffix_of, part)) in suffixes] for split, parts in by_split.items()}
    return {split: parts for split, parts in found.items() if parts}


def _missing(path: Path, key: str) -> DataError:
    """Names the first part of the path that is not there, and what is there instead."""
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    try:
        siblings = [p.name for p in missing.parent.iterdir()]
    except OSError:
        siblings = []
    where = f" in {missing.parent}" if len(missing.parts) > 1 else ""
    details = [] if missing == path else [f'there is no "{missing.name}"{where}']
    return DataError(f"no file or folder {path}{did_you_mean(missing.name, siblings)}", details=details, mend=f"check {key}")


def _hub(name: str) -> tuple[dict[str, list[Table]], list[str]]:
    progress.note(f'no file or folder "{name}"; asking the Hugging Face hub for a data set of that name')
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        loaded = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        nearby = did_you_mean(Path(name).name, [p.name for p in Path.cwd().iterdir()])
        raise DataError(
            f'no file or folder "{name}"{nearby}, and the Hugging Face hub gave no data set of that name',
            details=[(str(error).splitlines() or [type(error).__name__])[0][:300]],
            mend="check --data; a data set of the hub needs network, or give a local file",
        ) from None
    found: dict[str, list[Table]] = {}
    ignored: list[str] = []
    for key in loaded:
        split = split_of(str(key))
        if split is None or split in found:
            ignored.append(str(key))
        else:
            found[split] = [_table(f"{name}:{key}", loaded[key])]
    if "train" not in found:
        raise DataError(f"{name} has no train split", details=[f"found {', '.join(ignored + list(found)) or 'nothing'}"])
    return {split: found[split] for split in SPLITS if split in found}, ignored


def _table(file: str, rows: Any) -> Table:
    """A `datasets.Dataset` as a table; the names of its ClassLabel features stand for their integers."""
    inner = {column: getattr(kind, "feature", kind) for column, kind in rows.features.items()}  # of a list: what it is a list of
    classes = {column: kind.names for column, kind in inner.items() if hasattr(kind, "names")}
    if not len(rows):
        raise DataError(f"{file} has no rows")
    return Table(file, tuple(rows.features), list(enumerate(rows.to_list(), 1)), classes=classes)
