"""Training state on disk, without pickle: tensors as safetensors, the rest as JSON, put in place by one rename."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from edgetune import progress


def exists(scratch: Path, weights: Mapping[str, torch.nn.Parameter]) -> bool:
    """True when there is a checkpoint of such `weights` that can be read; one that is damaged, or of other weights, is told of."""
    place = scratch / "checkpoint"
    _finish_replacing(place)
    if not place.is_dir():
        return False
    best = [scratch / "best.safetensors"] if (scratch / "best.safetensors").exists() else []
    try:
        for path in (place / "weights.safetensors", place / "optimizer.safetensors", *best):
            with safe_open(path, "pt") as file:  # compares the length with what the header says
                if path.name != "optimizer.safetensors":
                    _compare(file, weights)
        json.loads((place / "state.json").read_text("utf-8"))
    except (OSError, SafetensorError, ValueError) as error:
        progress.warn(f"the checkpoint in {scratch} cannot be used ({error}): training starts anew")
        return False
    return True


def _compare(file: Any, weights: Mapping[str, torch.nn.Parameter]) -> None:
    """Raises ValueError for tensors of other names or shapes than `weights`."""
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - of a file
    if shapes != {name: tuple(weight.shape) for name, weight in weights.items()}:
        raise ValueError("it holds other weights than are trained now")


def save(scratch: Path, weights: Mapping[str, torch.nn.Parameter], optimizer: Any, schedule: Any, state: Any) -> None:
    """Weights, optimizer moments, random state and progress; the previous checkpoint stays until this one is whole."""
    new, place = scratch / "checkpoint.new", scratch / "checkpoint"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_file(_plain(weights), new / "weights.safetensors")
    names = {id(weight): name for name, weight in weights.items()}
    moments = {
        f"{names[id(weight)]}/{key}": tensor.detach().cpu().contiguous()
        for weight, values in optimizer.state.items()
        for key, tensor in values.items()
    }
    random_state = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random_state["random/cuda"] = torch.cuda.get_rng_state()
    save_file(moments | random_state, new / "optimizer.safetensors")
    with (new / "state.json").open("w", encoding="utf-8") as file:
        json.dump({"state": asdict(state), "schedule": schedule.last_epoch}, file)
        file.flush()
        os.fsync(file.fileno())
    old = scratch / "checkpoint.old"
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.replace(place, old)
    os.replace(new, place)
    shutil.rmtree(old, ignore_errors=True)


def load(scratch: Path, weights: Mapping[str, torch.nn.Parameter], optimizer: Any, schedule: Any, state: Any) -> None:
    """Put everything that `save` wrote back in place, in the objects given."""
    folder = scratch / "checkpoint"
    _put(load_file(folder / "weights.safetensors"), weights)
    tensors = load_file(folder / "optimizer.safetensors")
    torch.set_rng_state(tensors.pop("random/cpu"))
    cuda = tensors.pop("random/cuda", None)
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    for key, tensor in tensors.items():
        name, _, moment = key.rpartition("/")
        weight = weights[name]
        optimizer.state[weight][moment] = tensor.to(weight.device)
    saved = json.loads((folder / "state.json").read_text("utf-8"))
    for key, value in saved["state"].items():
        setattr(state, key, value)
    schedule.last_epoch = saved["schedule"]
    for group, base, rate in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = base * rate(schedule.last_epoch)


def save_best(scratch: Path, weights: Mapping[str, torch.nn.Parameter]) -> None:
    new = scratch / "best.safetensors.new"
    scratch.mkdir(parents=True, exist_ok=True)
    save_file(_plain(weights), new)
    os.replace(new, scratch / "best.safetensors")


def load_best(scratch: Path, weights: Mapping[str, torch.nn.Parameter]) -> None:
    _put(load_file(scratch / "best.safetensors"), weights)


def _finish_replacing(place: Path) -> None:
    """A kill between the two renames of `save` leaves only the old checkpoint under its other name."""
    old = place.with_name("checkpoint.old")
    if old.is_dir() and not place.exists():
        os.replace(old, place)


def _plain(weights: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    return {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}


def _put(tensors: Mapping[str, torch.Tensor], weights: Mapping[str, torch.nn.Parameter]) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(tensors[name])
