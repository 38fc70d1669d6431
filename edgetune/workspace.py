"""A run directory: what was asked, what each stage made of it, and what is still to do.

A stage writes into a scratch folder that survives a kill; its outputs are renamed into place and entered in `manifest.json`
last, so an entry means "complete". A re-run skips a stage whose key (recipe keys and parents' digests) and outputs are unchanged.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import psutil
from filelock import FileLock, Timeout

from edgetune import progress
from edgetune.artifact import Artifact, folder_digest, key_digest
from edgetune.errors import RunError
from edgetune.recipe import AUTO, CARD_KEYS, TRAINING_KEYS, Recipe, dump, load

A = TypeVar("A", bound=Artifact)
BEGUN = {".lock", ".work", "recipe.toml", ".recipe.toml.tmp"}  # all that a run holds before the output of its first stage
TOOLS = ("edgetune", "torch", "transformers", "peft", "onnx", "onnxruntime", "bitsandbytes", "tokenizers")


class Workspace:
    """One run directory. Open it with `opened`, which locks it against a second process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def recipe(self) -> Recipe:
        return load(self.path / "recipe.toml")

    @property
    def manifest(self) -> dict[str, Any]:
        path = self.path / "manifest.json"
        try:
            manifest = json.loads(path.read_text("utf-8")) if path.exists() else {"stages": {}}
            if not isinstance(manifest, dict) or not isinstance(manifest.get("stages"), dict):
                raise ValueError("it has no stages")
        except ValueError as error:
            raise RunError(f"{path} is damaged: {error}", mend=f"delete {path}; finished stages will be redone") from None
        return manifest

    def stage(
        self,
        name: str,
        kind: type[A],
        folder: str,
        make: Callable[[Path], Mapping[str, Any]],
        *,
        key: Mapping[str, Any],
        parents: Sequence[Artifact] = (),
    ) -> A:
        """The artifact in `folder`: as it is when nothing it depends on has changed, else made anew by `make(scratch / "out")`.

        `make` gets an empty folder to fill and returns the facts. Its parent folder is the stage's scratch space: what a
        killed run left there is there again, as long as the stage's key is the same.
        """
        digest = key_digest(key, parents)
        done = self.finished(name, kind, folder, digest)
        if done is not None:
            progress.note(f"{name}: up to date")
            return done
        scratch = self.path / ".work" / f"{name.replace(':', '-')}-{digest[:16]}"
        out = scratch / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        started = time.monotonic()
        with progress.collecting() as notes:
            facts = dict(make(out))
        made = folder_digest(out)
        _replace(out, self.path / folder)
        entry = {
            "state": "done",
            "key": digest,
            "folder": folder,
            "digest": made,
            "parents": [parent.digest for parent in parents],
            "seconds": round(time.monotonic() - started, 3),
            "peak_rss_bytes": peak_rss_bytes(),
            "tools": tool_versions(),
            "notes": notes,
            "facts": facts,
        }
        manifest = self.manifest
        manifest["stages"][name] = entry
        write_json(self.path / "manifest.json", manifest)
        shutil.rmtree(scratch, ignore_errors=True)
        return kind(self.path / folder, made, facts)

    def finished(self, name: str, kind: type[A], folder: str, key: str | None = None) -> A | None:
        """The stage's artifact if it is complete, unchanged on disk and (with `key`) made from the same inputs."""
        entry = self.manifest["stages"].get(name)
        path = self.path / folder
        if not entry or not path.is_dir() or (key and entry["key"] != key):
            return None
        if folder_digest(path) != entry["digest"]:
            progress.warn(f"{name}: {path} was changed after it was written; making it again")
            return None
        return kind(path, entry["digest"], entry["facts"])


@contextmanager
def opened(recipe: Recipe) -> Iterator[Workspace]:
    """Create or re-open `recipe.output`, locked; a new one that fails before its first stage is done is taken away again.

    Raises RunError when it belongs to another training recipe or process, or cannot be written.
    """
    path = Path(recipe.output)
    known, there = path / "recipe.toml", path.exists()
    if there and not _begun(path):
        if not known.is_file():
            raise RunError(f"{path} exists and is not a run directory", mend="choose another --output")
        _same_training(load(known), recipe, path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock", timeout=0).acquire()
    except Timeout:
        raise RunError(f"{path} is in use by another edgetune process", mend="wait for it, or choose another --output") from None
    except OSError as error:
        raise RunError(f"cannot write to {path}: {error.strerror}", mend="choose another --output") from None
    try:
        with lock:
            write_text(known, dump(recipe))
            yield Workspace(path)
    finally:
        if _begun(path):
            _take_away(path, whole=not there)


def _begun(path: Path) -> bool:
    return path.is_dir() and {p.name for p in path.iterdir()} <= BEGUN


def _take_away(path: Path, whole: bool) -> None:
    """Remove what a run without a finished stage has left; the folder too when it is `whole`ly ours."""
    shutil.rmtree(path / ".work", ignore_errors=True)
    for name in BEGUN - {".work"}:
        (path / name).unlink(missing_ok=True)
    if whole:
        path.rmdir()


def existing(path: Path) -> Workspace:
    """The run at `path`; raises RunError when there is none."""
    if not (path / "recipe.toml").is_file():
        raise RunError(f"{path} is not a run directory (no recipe.toml in it)", mend="edgetune adapt --output RUN makes one")
    return Workspace(path)


def _same_training(old: Recipe, new: Recipe, path: Path) -> None:
    before, after = _flat(old), _flat(new)
    changed = [
        f"{key}: {before.get(key)!r} in the run, {after.get(key)!r} asked"
        for key in sorted(before.keys() | after.keys())
        if key.split(".")[0] in TRAINING_KEYS
        and key not in CARD_KEYS
        and before.get(key) != after.get(key)
        and not (key == "method" and before[key] == AUTO)
    ]
    if changed:
        raise RunError(
            f"{path} holds a run with another training recipe", details=changed, mend="choose another --output, or delete that run"
        )


def _flat(recipe: Recipe) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in recipe.model_dump().items():
        flat |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _replace(new: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        old = new.parent / "old"
        shutil.rmtree(old, ignore_errors=True)
        os.replace(place, old)
    os.replace(new, place)


def write_text(path: Path, text: str) -> None:
    """Write so that a reader sees the old content or the new, never half (temporary file, fsync, rename)."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def peak_rss_bytes() -> int:
    """The largest resident size of this process so far, in bytes. On Linux not ru_maxrss, which starts from the parent's size."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def tool_versions() -> dict[str, str]:
    found = {}
    for tool in TOOLS:
        try:
            found[tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue
    return found
