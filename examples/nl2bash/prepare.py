"""Turn nl2bash's two parallel files into a folder of train, validation and test JSONL for text generation.

    python prepare.py all.nl all.cm nl2bash/

Line n of all.nl describes line n of all.cm. Pairs that share a command or a description (whitespace and, for descriptions, case
aside) go to the same split, so that nothing in test was seen in training. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

SHARES = {"test": 0.1, "validation": 0.1}


def groups(pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Indices of `pairs` in groups that share no description and no command with another group (union-find)."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for description, command in pairs:
        parent[root(("description", description.casefold()))] = root(("command", command))
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, (_, command) in enumerate(pairs):
        found[root(("command", command))].append(i)
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("descriptions", type=Path, help="all.nl")
    parser.add_argument("commands", type=Path, help="all.cm")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    # Not splitlines(): a line may hold other separators of Unicode.
    sides = [path.read_text("utf-8").rstrip("\n").split("\n") for path in (asked.descriptions, asked.commands)]
    if len(sides[0]) != len(sides[1]):
        parser.error(
            f"{asked.descriptions} has {len(sides[0]):,} lines and {asked.commands} {len(sides[1]):,}: they do not belong together"
        )
    pairs = [(" ".join(description.split()), command.strip()) for description, command in zip(*sides, strict=True)]
    parts = groups([(description, " ".join(command.split())) for description, command in pairs])
    random.Random(asked.seed).shuffle(parts)

    asked.output.mkdir(parents=True, exist_ok=True)
    for split, share in {**SHARES, "train": 1.0}.items():
        chosen: list[int] = []
        while parts and len(chosen) < share * len(pairs):
            chosen += parts.pop()
        rows = [json.dumps({"prompt": pairs[i][0], "completion": pairs[i][1]}, ensure_ascii=False) + "\n" for i in sorted(chosen)]
        (asked.output / f"{split}.jsonl").write_text("".join(rows), "utf-8", newline="\n")
        commands = {" ".join(pairs[i][1].split()) for i in chosen}
        print(f"{split}: {len(rows):,} pairs, {len(commands):,} commands")


if __name__ == "__main__":
    main()
