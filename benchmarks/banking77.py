"""Path one, in numbers: banking77 with MiniLM, methods full, lora and head, fp32 against int8.

    python benchmarks/banking77.py DATA [--work DIR] [--methods full,lora,head] [--seeds 0]

DATA is the folder with banking77's train.csv and test.csv (CC BY 4.0, PolyAI-LDN/task-specific-datasets). Every command is the
command line that a user types, as a process of its own. Writes benchmarks/results/banking77.json;
what another call has recorded there stays.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from command import edgetune, report

HERE = Path(__file__).parent
MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def adapt(data: Path, run: Path, method: str, seed: int) -> dict[str, Any]:
    seconds = edgetune(
        "adapt",
        "--model",
        MODEL,
        "--data",
        str(data),
        "--task",
        "text-classification",
        "--method",
        method,
        "--seed",
        str(seed),
        "--output",
        str(run),
    )
    facts = report(run)["adapt"]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "method": method,
        "seed": seed,
        "command_seconds": round(seconds, 1),
        "epochs": len(facts["history"]),
        "test": facts["test"],
        "test_without_overlap": facts.get("test_without_overlap"),
        "baselines": facts["baselines"],
        "confidence": facts["confidence"],
        "peak_rss_bytes": facts["peak_rss_bytes"],
        "precision": facts["precision"],
        "threads": facts["threads"],
    }


def export(run: Path, targets: list[str], work: Path) -> dict[str, Any]:
    """Export for every target; then fp32 and the chosen int8 in turns, each in processes of its own, at one thread."""
    flags = [flag for target in targets for flag in ("--target", target)]
    seconds = edgetune("export", str(run), *flags)
    exported = report(run)["export"]
    chosen = work / "int8"
    shutil.rmtree(chosen, ignore_errors=True)
    shutil.copytree(run / "bundles" / targets[0], chosen)
    edgetune("export", str(run), "--target", targets[0], "--set", "export.schemes=fp32")
    found = subprocess.run(
        [sys.executable, "-m", "edgetune", "benchmark", str(run / "bundles" / targets[0]), str(chosen), "--threads", "1", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    latency = json.loads(found.stdout)
    fp32, int8 = latency["bundles"]
    for bundle in latency["bundles"]:
        bundle["path"] = Path(bundle["path"]).name
    ratios = {
        f"{a['lengths']} {a['sequence']}": round(a["p50_ms"] / b["p50_ms"], 2)
        for a, b in zip(fp32["latency"], int8["latency"], strict=True)
    }
    keep = ("scheme", "size_bytes", "quality", "baseline", "drop", "rows", "flips", "verdict", "proven")
    return {
        "command_seconds": round(seconds, 1),
        "targets": {target: {key: exported[target][key] for key in keep} for target in targets},
        "fp32_over_int8_p50": ratios,
        "latency": latency,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-banking77"))
    parser.add_argument("--methods", default="full,lora,head")
    parser.add_argument("--seeds", default="0")
    asked = parser.parse_args()
    place = HERE / "results" / "banking77.json"
    results: dict[str, Any] = json.loads(place.read_text("utf-8")) if place.exists() else {"adapt": []}
    for method in asked.methods.split(","):
        for seed in map(int, asked.seeds.split(",")):
            run = asked.work / f"{method}-{seed}"
            found = adapt(asked.data, run, method, seed)
            results["adapt"] = [r for r in results["adapt"] if (r["method"], r["seed"]) != (method, seed)] + [found]
            if method == "full" and seed == 0:
                results["export"] = export(run, ["x86_64-vnni", "x86_64", "arm64"], asked.work)
            place.parent.mkdir(exist_ok=True)
            place.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
