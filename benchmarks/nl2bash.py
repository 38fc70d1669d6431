"""Path two, in numbers: nl2bash with SmolLM2-135M-Instruct, qlora and lora, then the int4, mixed and int8 candidates.

    python examples/nl2bash/prepare.py all.nl all.cm DATA
    python benchmarks/nl2bash.py DATA [--work DIR] [--methods qlora,lora] [--steps 120]

For a CPU: a few steps, rows of at most 96 tokens. The recorded result is of the first 3,000 / 200 / 300 rows of DATA's train,
validation and test files. Writes benchmarks/results/nl2bash.json; what another call has recorded there stays.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PROMPTS = (
    "list all png files",
    "count lines in all python files",
    "find files larger than 10MB in home directory",
)


def edgetune(*arguments: str) -> tuple[int, str]:
    found = subprocess.run([sys.executable, "-m", "edgetune", *arguments], stdout=subprocess.PIPE, text=True, check=False)
    return found.returncode, found.stdout


def measure(data: Path, run: Path, method: str, steps: int) -> dict[str, Any]:
    keys = ["--max-steps", str(steps), "--max-length", "96", "--learning-rate", "5e-4"]
    common = ["--model", MODEL, "--task", "text-generation", "--method", method, "--data", str(data), "--output", str(run)]
    if edgetune("adapt", *common, *keys)[0] != 0:
        raise SystemExit("adapt failed")
    code, _ = edgetune("export", str(run), "--target", "x86_64-vnni")
    report = json.loads((run / "report.json").read_text("utf-8"))
    adapt = report["adapt"]
    result = {
        "method": method,
        "date": time.strftime("%Y-%m-%d"),
        "steps": adapt["steps"],
        "seconds": adapt["seconds"],
        "peak_rss_bytes": adapt["peak_rss_bytes"],
        "precision": adapt["precision"],
        "before": adapt["baselines"].get("untrained"),
        "test": adapt["test"],
        "merge": {key: report["merge"][key] for key in ("max_logit_difference", "label_flips", "into", "bases") if key in report["merge"]},
        "export_exit_code": code,
    }
    if code == 0:
        bundle = run / "bundles" / "x86_64-vnni"
        result["export"] = report["export"]["x86_64-vnni"]
        result["graph"] = report["graph"]
        result["benchmark"] = json.loads(edgetune("benchmark", str(bundle), "--json")[1])
        result["benchmark"]["bundles"][0]["path"] = bundle.name
        result["answers"] = {prompt: edgetune("predict", str(bundle), prompt)[1].strip() for prompt in PROMPTS}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-nl2bash"))
    parser.add_argument("--methods", default="qlora,lora")
    parser.add_argument("--steps", type=int, default=120)
    asked = parser.parse_args()
    place = HERE / "results" / "nl2bash.json"
    results: dict[str, Any] = json.loads(place.read_text("utf-8")) if place.exists() else {}
    for method in asked.methods.split(","):
        results[method] = measure(asked.data, asked.work / method, method, asked.steps)
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
