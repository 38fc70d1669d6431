"""A bundle as a web app runs it, without a browser: onnxruntime-web's WebAssembly and transformers.js's tokenizer, in Node.

The packages are pinned in web/package-lock.json (versions and sha512) and installed into the cache by npm, without their scripts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgetune import progress
from edgetune.artifact import file_digest
from edgetune.errors import RequestError, StageError
from edgetune.runtime import cache
from edgetune.runtime.process import Finished, last_json
from edgetune.runtime.runners import Host

HERE = Path(__file__).parent / "web"
LISTS = ("package.json", "package-lock.json")
OLDEST = 18
NAME = "emulator/web"


def install() -> dict[str, Any]:
    """onnxruntime-web and @huggingface/tokenizers in the cache. Raises RequestError without Node and npm, StageError when npm fails."""
    _node()
    if shutil.which("npm") is None:
        raise RequestError("there is no npm on this machine", mend="install Node.js with npm (https://nodejs.org)")
    with progress.bar("installing onnxruntime-web", 1) as bar:
        place = cache.install(NAME, _key(), _make)
        bar.advance()
    return {"emulator": str(place), **cache.facts(place)}


@contextmanager
def host(_on: str) -> Iterator[Host]:
    """Run the golden vectors of bundles in Node. Raises RequestError when Node or the packages are missing."""
    program, place = _node(), cache.installed(NAME)
    if place is None or cache.facts(place)["key"] != _key():
        raise RequestError("onnxruntime-web is not installed", mend="edgetune targets emulator install web")

    def run(bundle: Path, arguments: Sequence[str]) -> Finished:
        if list(arguments) != ["--golden"]:
            raise RequestError("Node only checks golden vectors", mend="edgetune verify BUNDLE --on node")
        if json.loads((bundle / "edgetune.json").read_text("utf-8")).get("decoder"):
            raise RequestError(f"{bundle} has two graphs, which do not run on the web", mend=f"edgetune verify {bundle}")
        command = [program, str(HERE / "golden.cjs"), str(place), str(bundle.resolve())]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False)
        found = last_json(done.stdout)
        versions = (found or {}).get("versions", {})
        return Finished(done.returncode, found, done.stderr.strip(), ", ".join(f"{name} {version}" for name, version in versions.items()))

    yield Host("Node", run, "edgetune targets emulator install web")


def _node() -> str:
    program = shutil.which("node")
    mend = f"install Node.js {OLDEST} or newer (https://nodejs.org)"
    if program is None:
        raise RequestError("there is no node on this machine", mend=mend)
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    if not version.startswith("v") or int(version[1:].split(".")[0]) < OLDEST:
        raise RequestError(f"node {version} is too old", mend=mend)
    return program


def _key() -> dict[str, str]:
    return {name: file_digest(HERE / name) for name in LISTS}


def _make(place: Path, downloads: Path) -> Mapping[str, Any]:
    for name in LISTS:
        shutil.copyfile(HERE / name, place / name)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(downloads)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        details = [line for line in done.stderr.splitlines() if "npm error" in line][:5]
        raise StageError("npm cannot install onnxruntime-web", details=details, mend="is there a network? run it again")
    return {}
