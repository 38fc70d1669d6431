"""Reports as the stages leave them: a classifier for two targets, and a generator for one."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edgetune.recipe import validate

TOOLS = {"torch": "2.13.0+cpu", "onnxruntime": "1.31.1"}
COST = {"seconds": 12.345, "peak_rss_bytes": 987_654_321, "tools": TOOLS}
LABELS = ["door_lock", "door_unlock", "lights_on"]


def _metrics(accuracy: float) -> dict[str, float]:
    return {"accuracy": accuracy, "macro_f1": accuracy - 0.0123, "worst_recall": accuracy - 0.2, "log_loss": 1.2345 - accuracy}


def _epoch(number: int, accuracy: float, loss: float) -> dict[str, Any]:
    return {"epoch": number, "step": number * 10, "train_loss": loss, "tie": -loss, **_metrics(accuracy)}


def _sure(temperature: float) -> dict[str, Any]:
    test = {
        "expected_calibration_error": 0.0687,
        "answered": 0.9773,
        "accuracy_answered": 0.8895,
        "out_of_scope_rejected": 0.8605,
        "out_of_scope_auroc": 0.9695,
    }
    return {
        "temperature": temperature,
        "reject_below": 0.4085,
        "chosen_by": "validation: 29 rows out of scope against 112 in scope",
        "test": test,
    }


SENSITIVITY = {
    "layers": [
        {"layers": ["encoder.layer.5.output <dense>"], "kl": 0.31, "bytes": 589_824},
        {"layers": ["encoder.layer.0.query", "encoder.layer.0.key", "encoder.layer.0.value"], "kl": 0.02, "bytes": 442_368},
        {"layers": ["pooler"], "kl": 0.0004, "bytes": 147_456},
    ],
    "curve": [
        {"given_back": 1, "kl_left": 0.0204, "quality": 0.8512, "size_bytes": 24_800_000},
        {"given_back": 2, "kl_left": 0.0004, "quality": 0.8604, "size_bytes": 26_100_000},
    ],
    "given_back": ["encoder.layer.5.output <dense>"],
}


def _candidate(scheme: str, size: int, quality: float, reason: str, passed: bool, **facts: Any) -> dict[str, Any]:
    return {
        "scheme": scheme,
        "size_bytes": size,
        "quality": quality,
        "validation": _metrics(quality),
        "drop": 0.8839 - quality,
        "bound": 0.0271,
        "passed": passed,
        "reason": reason,
        **facts,
    }


def _bundle(verdict: str, proven: bool, quality: float, folder: str) -> dict[str, Any]:
    return {
        "scheme": "int8-dynamic",
        "size_bytes": 23_000_388,
        "metric": "accuracy",
        "quality": quality,
        "baseline": 0.8807,
        "drop": 0.8807 - quality,
        "rows": 176,
        "proven": proven,
        "verdict": verdict,
        "test": _metrics(quality),
        "test_float": _metrics(0.8807),
        "flips": {"right_to_wrong": 3, "wrong_to_right": 2},
        "candidates": [
            _candidate("fp32", 90_923_566, 0.8839, "the float graph that the others are compared with", False),
            _candidate(
                "int8-dynamic-per-channel",
                23_200_111,
                0.8012,
                "refused: accuracy drop +0.0827 on 112 rows; allowed 0.0100",
                False,
                sensitivity=SENSITIVITY,
            ),
            _candidate("int8-dynamic", 23_000_388, 0.8789, verdict, True, quantised=37, left_float=1, weight_bits=7),
        ],
        "confidence": _sure(0.8407),
        "golden": {
            "files": 9,
            "golden": {
                "passed": True,
                "rows": 128,
                "max_error": 4.99e-07,
                "tolerance": 0.05,
                "native": True,
                "changed": 0,
                "completions": {"rows": 0, "same": 0},
                "failures": [],
            },
            "passed": True,
        },
        "budgets": {
            "memory_mb": {"allowed": 256.0, "measured": 107.79},
            "latency_ms": {"allowed": 5.0, "measured": "unmeasured"},
        },
        **COST,
        "folder": folder,
    }


def _measured(target: str, times: tuple[float, float, float], **more: Any) -> dict[str, Any]:
    p50, p95, p99 = times
    shape = {"batch": 1, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "runs": 300, "ci95_ms": [p50 * 0.97, p50 * 1.02]}
    return {
        "path": f"/home/somebody/runs/home/bundles/{target}",
        "target": target,
        "scheme": "int8-dynamic",
        "size_bytes": 23_000_388,
        "load_ms": 86.7,
        "cold_start_ms": 200.9,
        "peak_rss_bytes": 107_765_760,
        "provider": "CPUExecutionProvider",
        "threads": 1,
        "latency": [{**shape, "sequence": 9, "lengths": "real"}, {**shape, "sequence": 128, "lengths": "fixed"}],
        "quality": {"metric": "accuracy", "value": 0.875, "n": 176, "ci95": [0.818, 0.916], "baseline": 0.8807, "measured": "here"},
        **more,
    }


def _machine() -> dict[str, Any]:
    return {
        "cpu": "AMD EPYC",
        "architecture": "x86_64",
        "isa": ["avx2", "avx512_vnni"],
        "cores": 2,
        "memory_bytes": 25_276_510_208,
        "os": "Linux 6.18",
        "python": "3.11.7",
        "onnxruntime": "1.31.1",
        "load_before": 2.28,
        "busy": 0.42,
        "load_after": 2.08,
        "disturbed": True,
    }


def _prepare() -> dict[str, Any]:
    counts = {"train": 282, "validation": 37, "test": 59}
    sizes = {"min": 3.0, "median": 30.0, "p95": 51.0, "max": 78.0}
    return {
        "task": "text-classification",
        "columns": {"text": "sentence", "label": "intent"},
        "columns_given": ["label"],
        "files": [{"file": "train.csv", "split": "train", "rows": 1029}, {"file": "test.csv", "split": "test", "rows": 219}],
        "ignored": ["README.md"],
        "read": 1248,
        "rows": {"train": 1014 - 141, "validation": 141, "test": 219},
        "dropped": [
            {"file": "train.csv", "row": 17, "reason": "no label"},
            *({"file": "train.csv", "row": 100 + i, "reason": f"the same as row {i}"} for i in range(13)),
            {"file": "train.csv", "row": 502, "reason": "also in test"},
        ],
        "labels": LABELS,
        "out_of_scope": "oos",
        "label_counts": {split: {**dict.fromkeys(LABELS, n), "oos": 43 if split == "test" else 29} for split, n in counts.items()},
        "duplicates": {"train": 13, "validation": 0, "test": 0},
        "conflicts": {"texts": 1, "rows": [{"file": "train.csv", "row": 31}, {"file": "train.csv", "row": 32}]},
        "overlap": {"train_test": 1},
        "cut": {"validation": "train"},
        "characters": {split: {"text": sizes} for split in counts},
        **COST,
    }


def _adapt() -> dict[str, Any]:
    per_label = [
        {"label": "door_lock", "precision": 0.7333, "recall": 1.0, "f1": 0.8462, "support": 11, "taken_for": None},
        {"label": "door_unlock", "precision": 1.0, "recall": 5 / 11, "f1": 0.625, "support": 11, "taken_for": "door_lock"},
        {"label": "lights_on", "precision": 0.8, "recall": 9 / 11, "f1": 0.8182, "support": 11, "taken_for": "door_lock"},
    ]
    settings = {"epochs": 6, "batch_size": 32, "learning_rate": 0.0002, "label_smoothing": 0.1, "seed": 0}
    return {
        "validation": _metrics(0.8839),
        "test": _metrics(0.8807),
        "test_without_overlap": _metrics(0.8791),
        "per_label": per_label,
        "confidence": _sure(0.8551),
        "baselines": {"untrained": _metrics(0.0625), "frozen_logistic_regression": _metrics(0.858)},
        "history": [_epoch(1, 0.5179, 2.6996), _epoch(2, 0.8839, 1.6105), _epoch(3, 0.8571, 1.2816)],
        "steps": 297,
        "settings": settings,
        "max_length": 256,
        "labels": LABELS,
        "trained_weights": 22_719_376,
        "device": "cpu",
        "precision": "bf16",
        "threads": 2,
        **COST,
    }


def _notes(stages: list[str]) -> dict[str, list[str]]:
    said = {
        "prepare": ["validation: 141 rows cut from train (seed 0)"],
        "adapt": ["test: 3 of 219 texts are longer than 256 tokens and were cut"],
    }
    return {stage: said.get(stage, []) for stage in stages}


def _recipe(task: str) -> dict[str, Any]:
    tree = {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "task": task,
        "method": "lora",
        "output": "runs/home",
        "data": {"path": "data/home"},
    }
    return validate(tree, "a test").model_dump(mode="json")


@pytest.fixture
def classification() -> dict[str, Any]:
    """Every stage of a classifier: one target proven, one unproven and measured on another machine than its own."""
    unproven = (
        "unproven: accuracy drop +0.0050 on 112 rows, under 0.0271 with 95 % confidence; allowed 0.0100; the rows are too few to prove it"
    )
    proven = "proven: accuracy drop +0.0050 on 112 rows, under 0.0090 with 95 % confidence; allowed 0.0100"
    merge = {
        "max_logit_difference": 1.5e-06,
        "label_flips": 0,
        "rows": 128,
        "labels": LABELS,
        "max_length": 256,
        "into": "the float base",
        **COST,
    }
    graph = {
        "exporter": "torchscript",
        "opset": 20,
        "ir": 10,
        "max_error": 2.15e-06,
        "shapes": 12,
        "refused": {"dynamo": "could not trace: x < y"},
        "size_bytes": 90_923_566,
        "generation": {},
        **COST,
        "folder": "graph/opset20",
    }
    bundles = [
        _measured("x86_64-vnni", (0.8518, 1.4884, 1.8729)),
        _measured("arm64", (0.8119, 1.1903, 1.4864), note="measured on this x86_64 machine, not on arm64"),
    ]
    stages = ["prepare", "adapt", "merge", "graph:20", "export:x86_64-vnni", "export:arm64", "benchmark"]
    return copy.deepcopy(
        {
            "schema": "edgetune.report/1",
            "edgetune": "0.1.0",
            "recipe": _recipe("text-classification"),
            "notes": _notes(stages),
            "prepare": _prepare(),
            "adapt": _adapt(),
            "merge": merge,
            "graph": {"20": graph},
            "export": {
                "x86_64-vnni": _bundle(proven, True, 0.8757, "bundles/x86_64-vnni"),
                "arm64": _bundle(unproven, False, 0.8693, "bundles/arm64"),
            },
            "benchmark": {"schema": "edgetune.benchmark/1", "machine": _machine(), "bundles": bundles, **COST},
        }
    )


def _perplexity(value: float) -> dict[str, float]:
    return {"perplexity": value, "loss": value / 10}


@pytest.fixture
def generation(classification: dict[str, Any]) -> dict[str, Any]:
    """Every stage of a generator: perplexity, no labels, no confidence, int4 refused."""
    report = copy.deepcopy(classification)
    report["recipe"] = _recipe("text-generation")
    report["prepare"] |= {
        "task": "text-generation",
        "columns": {"prompt": "prompt", "completion": "completion"},
        "labels": [],
        "out_of_scope": None,
        "label_counts": {},
        "characters": {
            split: {c: {"min": 1.0, "median": 20.0, "p95": 40.0, "max": 60.0} for c in ("prompt", "completion")}
            for split in ("train", "validation", "test")
        },
    }
    for name in ("per_label", "confidence", "test_without_overlap"):
        del report["adapt"][name]
    report["adapt"] |= {
        "validation": _perplexity(7.1234),
        "test": _perplexity(7.4321),
        "baselines": {"untrained": _perplexity(31.875)},
        "history": [
            {"epoch": 1, "step": 9, "train_loss": 2.5, "tie": -2.1, **_perplexity(8.25)},
            {"epoch": 2, "step": 18, "train_loss": 1.9, "tie": -1.96, **_perplexity(7.1234)},
        ],
        "labels": [],
    }
    del report["export"]["arm64"]
    bundle = report["export"]["x86_64-vnni"]
    del bundle["confidence"]
    bundle |= {
        "metric": "perplexity",
        "verdict": "proven: perplexity rise (relative) +0.0178 on 37 rows, under 0.0421 with 95 % confidence; allowed 0.1000",
        "scheme": "int8-weight",
        "quality": 7.5807,
        "baseline": 7.4321,
        "drop": 7.4321 - 7.5807,
        "rows": 58,
        "test": _perplexity(7.5807),
        "test_float": _perplexity(7.4321),
        "flips": {},
    }
    for candidate, value in zip(bundle["candidates"], (7.1234, 9.9, 7.25), strict=True):
        candidate |= {"quality": value, "validation": _perplexity(value), "drop": value / 7.1234 - 1}
    bundle["candidates"][1] |= {"scheme": "int4-block32", "reason": "refused: perplexity rise (relative) +0.3898; allowed 0.1000"}
    bundle["candidates"][2] |= {
        "scheme": "int8-weight",
        "reason": bundle["verdict"],
        "weights": {"int4": 0, "int8": 211},
        "kept_float": {"lm_head": "its width 9 is not a multiple of 16"},
    }
    bundle["golden"]["golden"]["completions"] = {"rows": 32, "same": 32}
    measured = report["benchmark"]["bundles"] = report["benchmark"]["bundles"][:1]
    measured[0] |= {"scheme": "int8-weight", "decode_tokens_per_s": 98.76}
    measured[0]["quality"] = {"metric": "perplexity", "value": 7.5807, "n": 58, "ci95": [6.9, 8.3], "baseline": 7.4321, "measured": "here"}
    for item in measured[0]["latency"]:
        item["tokens_per_s"] = 432.1
    return report
