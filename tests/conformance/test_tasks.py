"""Every task through the whole pipeline, on a slice of real data and with a tiny random model: no step may know a task by its name only.

    prepare -> adapt -> merge -> export (integers, behind the gate) -> verify -> predict -> benchmark

A case names its task and where its slice comes from, and how PyTorch answers an item; a new task adds its case to `CASES`, and nothing else.
The data is found in $EDGETUNE_DATA; the model learns next to nothing, so what is compared is that every stage says the same.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance import models

from edgetune import pipeline, tasks
from edgetune.data import columns
from edgetune.recipe import load
from edgetune.runtime import load as open_bundle
from edgetune.runtime.measure import Shape
from edgetune.runtime.verify import verify
from edgetune.stages.benchmark import benchmark
from edgetune.tasks import TASKS

TARGET = "x86_64-vnni"
ITEMS = 8  # that PyTorch answers too

Write = Callable[[Path, Path], Iterable[str]]  # (folder of the data sets, folder for the slice) -> the texts in it
Truth = Callable[[Path, Any, Mapping[str, Any]], Any]  # (merged folder, item, edgetune.json) -> what the bundle must answer


@dataclass(frozen=True)
class Case:
    task: str
    write: Write
    truth: Truth
    model: Callable[[Path, Iterable[str]], Path] = models.encoder
    keys: Mapping[str, Any] = field(default_factory=dict)  # of the recipe
    asked: Callable[[Any], Any] = lambda item: item  # what is asked of the bundle, of an item of the test rows
    above: float = 0.0  # what its quality on the test rows exceeds; -1 where a tiny model with random weights learns its own rows only


def save(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


# The slices.


def banking77(source: Path, out: Path) -> Iterable[str]:
    """24 rows each of six labels; the rest is the pipeline's to cut."""
    import csv

    with (source / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = [{"text": row["text"], "label": row["category"]} for row in csv.DictReader(file)]
    labels = sorted({row["label"] for row in rows})[:6]
    kept = [row for label in labels for row in [row for row in rows if row["label"] == label][:24]]
    save(out / "train.jsonl", kept)
    return [row["text"] for row in kept]


def two_data_sets(source: Path, out: Path) -> Iterable[str]:
    """What a bank's customer wants, and what an assistant is asked for: a folder each."""
    (out / "bank").mkdir()
    bank = list(banking77(source, out / "bank"))
    rows = []
    for intent in ("GetWeather", "PlayMusic", "RateBook"):
        published = json.loads((source / "snips" / intent / f"train_{intent}.json").read_text("utf-8", "replace"))[intent]
        rows += [{"utterance": "".join(piece["text"] for piece in row["data"]).strip(), "intent": intent} for row in published[:60]]
    (out / "assistant").mkdir()
    save(out / "assistant" / "train.jsonl", rows)
    return [*bank, *(row["utterance"] for row in rows)]


def two_columns(source: Path, out: Path) -> Iterable[str]:
    """Requests with their intent and whether they name a place, a column each; each tenth row has no second answer."""
    rows = []
    for intent in ("GetWeather", "PlayMusic", "BookRestaurant"):
        published = json.loads((source / "snips" / intent / f"train_{intent}.json").read_text("utf-8", "replace"))[intent]
        for i, row in enumerate(published[:80]):
            place = {"city", "state", "country"} & {piece.get("entity", "") for piece in row["data"]}
            text = "".join(piece["text"] for piece in row["data"]).strip()
            rows.append({"text": text, "intent": intent, "place": "" if i % 10 == 9 else "named" if place else "none"})
    save(out / "train.jsonl", rows)
    return [row["text"] for row in rows]


def semeval(source: Path, out: Path) -> Iterable[str]:
    """Rows of a relation in both directions, of another and of none."""
    import csv

    with (source / "semeval2010_task8" / "train.tsv").open(encoding="utf-8", newline="") as file:
        rows = [{"text": text, "label": label} for label, text in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    labels = ("Other", "Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Message-Topic(e1,e2)")
    kept = [row for label in labels for row in [row for row in rows if row["label"] == label][:80]]
    save(out / "train.jsonl", kept)
    return [row["text"] for row in kept]


def snips(source: Path, out: Path) -> Iterable[str]:
    """Three intents with their slots, as published: sentences in pieces by intent. 80 rows to learn from, 20 each to choose and to test."""
    texts = []
    for name, start, stop in (("train", 0, 80), ("validation", 80, 100), ("test", 100, 120)):
        rows = {}
        for intent in ("GetWeather", "PlayMusic", "RateBook"):
            published = json.loads((source / "snips" / intent / f"train_{intent}.json").read_text("utf-8", "replace"))[intent]
            rows[intent] = published[start:stop]
            texts += ["".join(piece["text"] for piece in row["data"]) for row in rows[intent]]
        (out / f"{name}.json").write_text(json.dumps(rows), "utf-8")
    return texts


def xquad(source: Path, out: Path) -> Iterable[str]:
    """Three questions on the first paragraph of every article, so that there are articles to cut by."""
    articles = json.loads((source / "xquad" / "xquad.en.json").read_text("utf-8"))["data"]
    kept = [{**one, "paragraphs": [{**one["paragraphs"][0], "qas": one["paragraphs"][0]["qas"][:3]}]} for one in articles]
    (out / "train.json").write_text(json.dumps({"data": kept}), "utf-8")
    return [text for one in kept for part in one["paragraphs"] for text in (part["context"], *(asked["question"] for asked in part["qas"]))]


def wikitext2(source: Path, out: Path) -> Iterable[str]:
    """Lines as they are: plain text."""
    lines = (source / "wikitext2" / "valid.txt").read_text("utf-8").splitlines()
    kept = [line.strip() for line in lines if 60 < len(line) < 400][:160]
    (out / "train.txt").write_text("\n".join(kept) + "\n", "utf-8")
    return kept


def multi30k(source: Path, out: Path) -> Iterable[str]:
    """English and German side by side, as published, short sentences first."""
    import gzip

    texts = []
    for name, own, most in (("train", "train", 400), ("validation", "val", 40), ("test", "test_2016_flickr", 40)):
        sides = [gzip.decompress((source / "multi30k" / f"{own}.{side}.gz").read_bytes()).decode().splitlines() for side in ("en", "de")]
        pairs = sorted(zip(*sides, strict=True), key=lambda pair: len(pair[0]))[:most]
        for side, lines in zip(("en", "de"), zip(*pairs, strict=True), strict=True):
            (out / f"{name}.{side}").write_text("".join(f"{line}\n" for line in lines), "utf-8")
            texts += lines
    return texts


def stsb(source: Path, out: Path, row: Callable[[str, str, float], dict[str, Any]] | None = None) -> Iterable[str]:
    """Pairs with a score from 0 to 5, or what `row` makes of them."""
    import csv

    texts = []
    for name, own, most in (("train", "train", 300), ("validation", "dev", 80), ("test", "test", 80)):
        with (source / "stsb" / f"stsb-en-{own}.csv").open(encoding="utf-8", newline="") as file:
            every = [(first, second, float(score)) for first, second, score in csv.reader(file)]
        some = sorted(every[:: len(every) // most][:most], key=lambda one: len(one[0]) + len(one[1]))[:-5]  # without the longest
        save(out / f"{name}.jsonl", [row(*one) if row else dict(zip(("text", "text_pair", "score"), one, strict=True)) for one in some])
        texts += [text for first, second, _ in some for text in (first, second)]
    return texts


def paraphrases(source: Path, out: Path) -> Iterable[str]:
    """The same pairs with a label: do the two say the same (a score of 3.5 and above)?"""
    return stsb(
        source, out, lambda first, second, score: {"premise": first, "hypothesis": second, "label": "same" if score >= 3.5 else "other"}
    )


def snips_kinds(source: Path, out: Path) -> Iterable[str]:
    """What is named in a request, whatever its intent: the kinds of its slots, each a label; those that are in 40 requests at least."""
    rows = []
    for path in sorted((source / "snips").glob("*/train_*.json")):
        if not path.name.endswith("_full.json"):
            [requests] = json.loads(path.read_text("utf-8", errors="replace")).values()
            for request in requests[:60]:
                kinds = {part["entity"] for part in request["data"] if "entity" in part}
                rows.append({"text": "".join(part["text"] for part in request["data"]).strip(), "labels": sorted(kinds)})
    counts = Counter(kind for row in rows for kind in row["labels"])
    for row in rows:
        row["labels"] = [kind for kind in row["labels"] if counts[kind] >= 40]
    save(out / "train.jsonl", rows)
    return [row["text"] for row in rows]


def nl2bash(source: Path, out: Path) -> Iterable[str]:
    sides = [(source / "nl2bash" / name).read_text("utf-8").split("\n") for name in ("all.nl", "all.cm")]
    rows = [{"prompt": nl, "completion": cm} for nl, cm in zip(*sides, strict=True) if len(nl) + len(cm) < 120][:160]
    save(out / "train.jsonl", rows)
    return [text for row in rows for text in row.values()]


# How PyTorch answers, with transformers alone.


def encoded(folder: Path, *texts: str) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(folder)(*texts, truncation=True, max_length=models.TOKENS, return_tensors="pt")
    inputs = {name: found[name] for name in ("input_ids", "attention_mask", *(["token_type_ids"] if len(texts) > 1 else []))}
    return found, inputs


def outputs(folder: Path, task: str, inputs: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    import torch

    from edgetune.methods.model import load_merged

    with torch.no_grad():
        return {name: value.double().numpy() for name, value in load_merged(folder, task)(**inputs).items() if hasattr(value, "numpy")}


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def fields(item: Any) -> list[str]:
    return list(item.values()) if isinstance(item, Mapping) else [item]


def label(folder: Path, item: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    _, inputs = encoded(folder, *fields(item))
    logits = outputs(folder, facts["task"], inputs)["logits"][0]
    chances = softmax(logits / facts["confidence"]["temperature"])
    sure = chances.max() >= facts["confidence"]["reject_below"]
    best = np.argsort(-chances)[:3]
    return {
        "label": facts["labels"][best[0]] if sure else None,
        "confidence": chances.max(),
        "scores": {facts["labels"][i]: chances[i] for i in best},
        "cut": False,
    }


def labels_of_tasks(folder: Path, item: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    _, inputs = encoded(folder, *fields(item))
    logits = outputs(folder, facts["task"], inputs)["logits"][0]
    found = {}
    for task, trust in zip(dict.fromkeys(one.split(":")[0] for one in facts["labels"]), facts["confidence"]["of_tasks"], strict=True):
        own = {i: one.split(":")[1] for i, one in enumerate(facts["labels"]) if one.startswith(f"{task}:")}
        chances = dict(zip(own.values(), softmax(logits[list(own)] / trust["temperature"]), strict=True))
        best = sorted(chances, key=chances.__getitem__, reverse=True)[:3]
        sure = chances[best[0]] >= trust["reject_below"]
        scores = {name: chances[name] for name in best}
        found[task] = {"label": best[0] if sure else None, "confidence": chances[best[0]], "scores": scores}
    return {"tasks": found, "cut": False}


def labels(folder: Path, item: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    _, inputs = encoded(folder, *fields(item))
    chances = 1 / (1 + np.exp(-outputs(folder, facts["task"], inputs)["logits"][0]))
    order = [int(i) for i in np.argsort(-chances)]
    said = [i for i in order if chances[i] >= facts["confidence"]["thresholds"][i]]
    shown = [*order[:3], *(i for i in said if i not in order[:3])]
    return {"labels": [facts["labels"][i] for i in said], "scores": {facts["labels"][i]: chances[i] for i in shown}, "cut": False}


def number(folder: Path, item: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    _, inputs = encoded(folder, *fields(item))
    return {"score": float(outputs(folder, facts["task"], inputs)["logits"][0, 0]), "cut": False}


def vector(folder: Path, item: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The mean of the last hidden states, of length 1."""
    import torch
    from transformers import AutoModel

    _, inputs = encoded(folder, item)
    with torch.no_grad():
        mean = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0].mean(0)
    return {"embedding": (mean / mean.norm()).double().tolist(), "cut": False}


def entities(folder: Path, item: str, facts: Mapping[str, Any], output: str = "logits") -> list[dict[str, Any]]:
    """Words by a regular expression, their first tokens by transformers, entities by seqeval."""
    import re

    from seqeval.metrics.sequence_labeling import get_entities

    found, inputs = encoded(folder, item)
    chances = softmax(outputs(folder, facts["task"], inputs)[output][0])
    words = [(match, found.char_to_token(match.start())) for match in re.finditer(r"\w+|[^\w\s]", item)]
    tags = [name for name in facts["labels"] if not name.startswith("intent:")]
    told = get_entities([tags[chances[token].argmax()] if token is not None else "O" for _, token in words])
    return [
        {
            "label": kind,
            "text": item[words[first][0].start() : words[last][0].end()],
            "start": words[first][0].start(),
            "end": words[last][0].end(),
            "confidence": np.mean([chances[token].max() for _, token in words[first : last + 1]]),
        }
        for kind, first, last in told
    ]


def answer(folder: Path, item: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Windows by transformers, and every span of them tried."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    room = facts["max_length"] - len(tokenizer(item["question"])["input_ids"]) - 1
    found = tokenizer(
        *item.values(),
        truncation="only_second",
        max_length=facts["max_length"],
        stride=min(128, room // 2),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    sums: dict[tuple[int, int], float] = {}
    for number, offsets in enumerate(found["offset_mapping"]):
        inputs = {name: torch.tensor([found[name][number]]) for name in ("input_ids", "attention_mask", "token_type_ids")}
        said = outputs(folder, facts["task"], inputs)
        inside = [i for i, part in enumerate(found.sequence_ids(number)) if part == 1]
        for i in inside:
            for j in (j for j in inside if i <= j < i + 30):
                place, total = (offsets[i][0], offsets[j][1]), said["start_logits"][0, i] + said["end_logits"][0, j]
                sums[place] = max(total, sums.get(place, -np.inf))
    best = sorted(sums, key=lambda place: -sums[place])[:20]
    chances = softmax(np.array([sums[place] for place in best]))
    told = [
        {"answer": item["context"][a:b], "start": a, "end": b, "score": chance}
        for (a, b), chance in list(zip(best, chances, strict=True))[:3]
    ]
    return {**told[0], "best": told, "cut": False}


def with_gaps(item: str) -> str:
    """The text with its second and its last word missing."""
    words = item.split()
    return " ".join([words[0], "[MASK]", *words[2:8], "[MASK]", "."])


def gaps(folder: Path, item: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    found, inputs = encoded(folder, item)
    logits = outputs(folder, facts["task"], inputs)["logits"][0]
    told, text = [], item
    for start in (i for i in range(len(item)) if item.startswith("[MASK]", i)):
        chances = softmax(logits[found.char_to_token(start)])
        best = np.argsort(-chances)[:5]
        fills = [{"text": tokenizer.decode([i]).strip(), "confidence": chances[i]} for i in best]
        told.append({"start": start, "end": start + len("[MASK]"), "fills": fills})
        text = text.replace("[MASK]", fills[0]["text"], 1)
    return {"text": text, "gaps": told, "cut": False}


def intent_and_slots(folder: Path, item: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    said = label(folder, item, facts)
    said["scores"] = {name.removeprefix("intent:"): chance for name, chance in said["scores"].items()}
    return {"intent": said.pop("label").removeprefix("intent:"), **said, "slots": entities(folder, item, facts, "slot_logits")}


def continuation(folder: Path, item: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    parts = facts["generation"]
    inputs = tokenizer(parts["prefix"] + item.strip() + parts["suffix"], add_special_tokens=False, return_tensors="pt")
    size = inputs["input_ids"].shape[1]
    most = min(parts["max_new_tokens"], facts["max_length"] - size)
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=most, eos_token_id=parts["stop_ids"])[0, size:].tolist()
    finished = ids[-1] in parts["stop_ids"]
    ids = ids[:-1] if finished else ids
    return {"text": tokenizer.decode(ids), "tokens": ids, "finished": finished}


def translation(folder: Path, item: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    inputs = tokenizer(item, truncation=True, max_length=facts["max_length"], return_tensors="pt")
    most, stops = min(facts["generation"]["max_new_tokens"], facts["max_length"]), facts["generation"]["stop_ids"]
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=most, eos_token_id=stops)[0, 1:].tolist()
    finished = ids[-1] in stops
    ids = ids[:-1] if finished else ids
    return {"text": tokenizer.decode(ids, skip_special_tokens=True), "tokens": ids, "finished": finished, "cut": False}


CASES: dict[str, Case] = {
    "one label": Case("text-classification", banking77, label),
    "one label, few rows of it": Case(
        "text-classification", banking77, label, keys={"method": "few-shot", "data.shots": 8, "adapt.learning_rate": 1e-3}
    ),
    "one label, a word in a gap": Case("text-classification", banking77, label, models.masked, keys={"method": "pattern"}),
    "one label, the next word": Case("text-classification", banking77, label, models.decoder, keys={"method": "pattern"}),
    "a label of a pair": Case("text-classification", paraphrases, label),
    "several labels": Case("multi-label-classification", snips_kinds, labels, keys={"adapt.max_steps": 150}),
    "tasks, a data set each": Case("multi-task", two_data_sets, labels_of_tasks, keys={"adapt.sampling_temperature": 2}),
    "tasks, a column each": Case("multi-task", two_columns, labels_of_tasks, keys={"data.tasks": "intent,place"}),
    "a number": Case("text-regression", stsb, number, above=-1.0),
    "vectors": Case("sentence-similarity", stsb, vector),
    "entities": Case(
        "token-classification", snips, lambda *given: {"entities": entities(*given), "cut": False}, keys={"adapt.max_steps": 120}
    ),
    "intent and slots": Case("intent-and-slots", snips, intent_and_slots, keys={"adapt.max_steps": 120, "export.reject_below": 0}),
    "relations": Case("relation-extraction", semeval, label, keys={"adapt.max_steps": 120}),
    "questions": Case("question-answering", xquad, answer, above=-1.0),
    "gaps": Case("fill-mask", wikitext2, gaps, asked=with_gaps, keys={"export.max_perplexity_increase": 1.0}),
    "generation": Case("text-generation", nl2bash, continuation, models.decoder),
    "translation": Case(
        "text2text-generation",
        multi30k,
        translation,
        models.seq2seq,
        keys={"adapt.max_steps": 150, "adapt.learning_rate": 1e-2, "data.source": "en", "data.target": "de"},
    ),
}


def test_every_task_has_a_case() -> None:
    assert {case.task for case in CASES.values()} == set(TASKS)


def prepared(case: Case, folder: Path) -> dict[str, Any]:
    """The recipe's keys for a slice of the case's data and a tiny model, both written into `folder`."""
    source = Path(os.environ.get("EDGETUNE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not source.is_dir():
        pytest.skip("EDGETUNE_DATA names no folder with the data sets")
    (folder / "data").mkdir()
    model = case.model(folder / "model", list(case.write(source, folder / "data")))
    return {
        "model": str(model),
        "task": case.task,
        "method": "full",
        "output": str(folder / "run"),
        "data.path": str(folder / "data"),
        "adapt.max_steps": 30,
        "adapt.learning_rate": 5e-3,
        "adapt.precision": "fp32",
        "export.targets": [TARGET],
        "export.max_drop": 0.1,
        "export.max_perplexity_increase": 0.5,
        **case.keys,
    }


@pytest.mark.parametrize("name", CASES)
def test_through_the_whole_pipeline(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    run = pipeline.run(load(None, prepared(case, tmp_path)), "export")
    task, report = tasks.get(case.task), json.loads((run / "report.json").read_text("utf-8"))

    before, found = report["adapt"]["baselines"], report["export"][TARGET]
    assert set(before.get("untrained") or before["verbaliser"]) == set(report["adapt"]["test"]) == set(found["test"]), (
        "every stage tells the same metrics"
    )
    assert {task.metric, task.tie} <= set(found["test"])
    assert found["quality"] > case.above, "it learned something, so that there is something to lose"
    losses = [epoch["train_loss"] for epoch in report["adapt"]["history"]]
    assert losses[-1] < losses[0] or len(losses) == 1
    assert report["merge"]["label_flips"] == 0
    integers = [one for one in found["candidates"] if "int" in one["scheme"]]
    assert integers and all(one["reason"] for one in integers), "integers were tried, and the gate gave its reason"
    if task.higher_is_better:
        [plain] = [one for one in found["candidates"] if one["scheme"] == "fp32"]
        for one in integers:
            assert one["drop"] == pytest.approx(plain["quality"] - one["quality"], abs=1e-9), "the gate judges the metric that is told"
    bundle = run / "bundles" / TARGET
    assert verify(bundle)["golden"]["passed"]

    rows = [json.loads(line) for line in (run / "data" / "test.jsonl").read_text("utf-8").splitlines()]
    measured = benchmark([bundle], rounds=1, shapes=[Shape()], rows=run / "data" / "test.jsonl", against=[run / "merged"])
    quantised, float_model = (one["quality"] for one in measured["bundles"])
    assert quantised["value"] == pytest.approx(found["quality"], abs=1e-6), "run.py's answers are worth what export said"
    assert float_model["value"] == pytest.approx(found["baseline"], rel=1e-4), "so are PyTorch's"
    assert quantised["ci95"][0] <= quantised["value"] <= quantised["ci95"][1]
    assert all(one["latency"][0]["p50_ms"] > 0 for one in measured["bundles"])

    pipeline.export(run, {"export.schemes": ("fp32",)})
    plain = open_bundle(bundle)
    items = [case.asked(columns.item(row, task.asks)) for row in rows[:ITEMS]]
    answers = plain.predict(items)
    assert len(set(map(repr, answers))) > 1, "what is asked matters"
    for item, answer in zip(items, answers, strict=True):
        same(answer, case.truth(run / "merged", item, plain.facts))
        assert plain.line(answer)


@pytest.mark.parametrize("name", ["one label, few rows of it", "a label of a pair", "tasks, a data set each", "vectors", "relations"])
def test_a_smaller_model_is_sought(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    keys = prepared(case, tmp_path) | {"export.fit": True, "export.max_drop": 1.0, "compress.epochs": 1, "compress.learning_rate": 5e-3}
    run = pipeline.run(load(None, keys), "export")
    report = json.loads((run / "report.json").read_text("utf-8"))
    found, bundle = report["export"][TARGET], run / "bundles" / TARGET
    assert found["form"].startswith("1layer"), "all may be lost, so the least ships"
    assert verify(bundle)["golden"]["passed"]

    pipeline.export(run, {"export.fit": False, "export.schemes": ("fp32",), "compress.layers": 1})
    plain = open_bundle(bundle)
    rows = [json.loads(line) for line in (run / "data" / "test.jsonl").read_text("utf-8").splitlines()]
    items = [case.asked(columns.item(row, plain.facts["asks"])) for row in rows[:ITEMS]]
    for item, answer in zip(items, plain.predict(items), strict=True):
        same(answer, case.truth(run / "compressed" / "1layer", item, plain.facts))


def same(answer: Any, truth: Any) -> None:
    """Equal, numbers to 1e-3."""
    if isinstance(truth, Mapping):
        assert answer.keys() == truth.keys()
        for key in truth:
            same(answer[key], truth[key])
    elif isinstance(truth, list):
        assert len(answer) == len(truth)
        for one, other in zip(answer, truth, strict=True):
            same(one, other)
    elif isinstance(truth, float | np.floating):
        assert answer == pytest.approx(float(truth), abs=1e-3)
    else:
        assert answer == truth
