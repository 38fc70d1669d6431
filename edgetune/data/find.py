"""Where the rows are: a file, a folder of split files, or a data set of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgetune import progress
from edgetune.artifact import file_digest
from edgetune.data.read import FORMS, Table, read
from edgetune.errors import DataError, did_you_mean
from edgetune.recipe import DataKeys

SPLITS = ("train", "validation", "test")
_SPLIT = re.compile(r"(?:(train|training)|(validation|valid|val|dev)|(test))(?![a-z])", re.IGNORECASE)
_SHARD = re.compile(r"-\d+-of-\d+$")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+|[\w-]+")


def tables(keys: DataKeys) -> tuple[dict[str, list[Table]], list[str]]:
    """The tables of each split that `keys.path` has, and the names of what was ignored. A single file is `train`.

    Raises DataError when there is nothing at the path, or no train split.
    """
    found, ignored = _local(keys.path)
    if found is None:
        return _hub(keys.path)
    if ignored:
        progress.note(f"ignored in {keys.path}: {', '.join(ignored)}")
    return {split: [read(path, keys.encoding) for path in paths] for split, paths in found.items()}, ignored


def digests(keys: DataKeys) -> dict[str, str]:
    """sha256 of every local file that `keys.path` names, by path; empty for a data set of the hub."""
    found, _ = _local(keys.path)
    return {str(path): file_digest(path) for paths in (found or {}).values() for path in paths}


def split_of(name: str) -> str | None:
    """train, validation or test for a name such as `train.csv`, `dev-2.tsv` or `test-00000-of-00001.parquet`."""
    match = _SPLIT.match(name)
    return SPLITS[(match.lastindex or 1) - 1] if match else None


def _local(name: str) -> tuple[dict[str, list[Path]] | None, list[str]]:
    if not name:
        forms = "a CSV, TSV, JSON, JSONL or Parquet file, a folder of train/validation/test files, or a hub id"
        raise DataError("no data given", mend=f"--data {forms}")
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.exists():
        return {"train": [path]}, []
    if _HUB_ID.fullmatch(name) and path.suffix.lower() not in FORMS and not (len(path.parts) > 1 and path.parent.exists()):
        return None, []
    raise _missing(path)


def _folder(folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    found: dict[str, list[Path]] = {}
    ignored: list[str] = []
    try:
        content = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}") from None
    for path in content:
        split = split_of(path.name) if path.is_file() and path.suffix.lower() in FORMS else None
        if split:
            found.setdefault(split, []).append(path)
        else:
            ignored.append(f"{path.name}/" if path.is_dir() else path.name)
    for split, paths in found.items():
        if len({(_SHARD.sub("", p.stem), p.suffix) for p in paths}) > 1:
            raise DataError(
                f"{folder} has {len(paths)} files for the {split} split: {', '.join(p.name for p in paths)}",
                details=["one may be a part or a copy of another, so they are not put together"],
                mend=f"keep one of them in the folder, called {split}{paths[0].suffix}",
            )
    if "train" not in found:
        names = [*(p.name for paths in found.values() for p in paths), *ignored]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        raise DataError(
            f"{folder} has no train file",
            details=[f"found {', '.join(names[:8])}{more}" if names else "the folder is empty"],
            mend="call the files train.csv, validation.csv and test.csv (or .tsv, .json, .jsonl, .parquet), or give one file as --data",
        )
    return {split: found[split] for split in SPLITS if split in found}, ignored


def _missing(path: Path) -> DataError:
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
    return DataError(f"no file or folder {path}{did_you_mean(missing.name, siblings)}", details=details, mend="check --data")


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
    classes = {column: kind.names for column, kind in rows.features.items() if hasattr(kind, "names")}
    if not len(rows):
        raise DataError(f"{file} has no rows")
    return Table(file, tuple(rows.features), list(enumerate(rows.to_list(), 1)), classes=classes)
