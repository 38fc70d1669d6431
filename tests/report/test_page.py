"""The page shows what the dict holds, for every prefix of the stages, and nothing from outside."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from edgetune.report.page import benchmark_html, html

STAGES = ("prepare", "adapt", "merge", "graph", "export", "benchmark")
BLOCKS = {"td", "th", "dt", "dd", "li", "p", "h2", "h3", "small", "span", "summary"}
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """A page as its texts, its `<data value>` numbers, its ids and its tags; asserts that the tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "data":
            self.data.append((dict(attrs)["value"] or "", ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag
        if tag in BLOCKS:
            self.texts.append(" ")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)
        if self.open and self.open[-1] == "data":
            self.data[-1] = (self.data[-1][0], data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))

    @property
    def sections(self) -> set[str]:
        return {str(attrs["id"]) for tag, attrs in self.tags if tag == "h2"}


def shown(page: Page) -> set[float]:
    return {float(value) for value, _ in page.data}


def numbers(tree: Any) -> set[float]:
    """Every number in a tree of JSON values."""
    if isinstance(tree, bool):
        return set()
    if isinstance(tree, int | float):
        return {float(tree)}
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return set().union(*map(numbers, parts))


def prefix(report: dict[str, Any], until: str) -> dict[str, Any]:
    later = STAGES[STAGES.index(until) + 1 :]
    return {name: facts for name, facts in report.items() if name not in later}


@pytest.mark.parametrize("kind", ["classification", "generation"])
def test_every_prefix_of_the_stages_is_a_page(kind: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(kind)
    marks = {"prepare": "data", "adapt": "training", "merge": "merge", "graph": "merge", "export": "export", "benchmark": "benchmark"}
    for i, until in enumerate(STAGES):
        page = Page(html(prefix(report, until)))
        assert set(marks.values()) & page.sections == {marks[stage] for stage in STAGES[: i + 1]}
        linked = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
        assert linked == {f"#{name}" for name in page.sections}, "the table of contents and the sections differ"
        assert ("Not exported yet" in page.text) == (until not in ("export", "benchmark"))


def test_a_search_and_a_chosen_method_are_told(classification: dict[str, Any]) -> None:
    def trial(number: int, rate: float, state: str, *epochs: float) -> dict[str, Any]:
        settings = {"adapt.learning_rate": rate, "lora.rank": 8}
        value = max(epochs, default=None)
        return {"trial": number, "settings": settings, "state": state, "epochs": list(epochs), "value": value, "length": 3}

    trials = [
        trial(0, 2e-4, "done", 0.5, 0.6, 0.7),
        trial(1, 1e-3, "given up", 0.4321),
        trial(2, 5e-4, "done", 0.7, 0.8, 0.88),
        trial(3, 1, "diverged"),
    ]
    found = {
        "metric": "accuracy",
        "keys": list(trials[0]["settings"]),
        "trials": trials,
        "kept": 2,
        "test_of_defaults": {"accuracy": 0.8765},
    }
    report = prefix(classification, "adapt") | {"auto": {"method": "lora", "why": "10,003 rows: <large>", "passed": {}}}
    report["adapt"]["search"] = found
    page = Page(html(report))
    assert "Method lora (auto: 10,003 rows: <large>), data" in page.text
    assert "Trial 3 was kept; accuracy on test: 88.1 %, and 87.6 % with the defaults. The best" in page.text
    assert "1 0.0002 8 70.0 % 3 of 3 done, the defaults" in page.text
    assert "2 0.001 8 43.2 % 1 of 3 given up" in page.text
    assert "3 0.0005 8 88.0 % 3 of 3 done, kept" in page.text
    assert "4 1 8 - 0 of 3 diverged" in page.text
    report["adapt"]["search"] = found | {"kept": 0, "test_of_defaults": None}
    assert "Nothing beat the defaults, the first trial: they were kept." in Page(html(report)).text


def test_what_a_continued_run_kept_is_told(classification: dict[str, Any]) -> None:
    metrics = classification["adapt"]["test"]
    report = prefix(classification, "adapt")
    report["adapt"]["continual"] = {
        "run": "runs/<old>",
        "new_labels": ["c"],
        "rows": {"old": 1203, "new": 307},
        "before": dict.fromkeys(metrics, 0.9311),
        "after": dict.fromkeys(metrics, 0.9277),
        "new": dict.fromkeys(metrics, 0.8522),
        "difference": {"value": -0.0034, "ci95": [-0.0101, 0.0032], "flips": {"right_to_wrong": 14, "wrong_to_right": 10}},
    }
    report["prepare"]["earlier"] = {"run": "runs/<old>", "rows": {"train": 811, "validation": 402, "test": 1203}, "of": 9001, "labels": 2}
    page = Page(html(report))
    for text in (
        "Continued from runs/<old>: its test rows before and after, and the new ones; 1 new label",
        "changed by -0.0034, 95 % interval -0.0101 to +0.0032",
        "14 right answers lost, 10 gained",
        "Of those used 2,416 are rows of runs/<old> (train 811, validation 402, test 1,203); 811 of the 9,001 that it learned from",
    ):
        assert text in page.text, text
    assert {0.9311, 0.9277, 0.8522, 1203, 307} <= shown(page)


def test_one_target_of_two_is_a_page(classification: dict[str, Any]) -> None:
    report = prefix(classification, "export")
    del report["export"]["arm64"]
    text = Page(html(report)).text
    assert "in the bundle 87.6 %" in text
    assert "not measured yet" in text


def test_a_checkpoint_from_elsewhere_is_a_page(classification: dict[str, Any]) -> None:
    merged = {
        "into": "its own weights",
        "test": classification["adapt"]["test"],
        "labels": ["a"],
        "max_length": 8,
        "seconds": 1.0,
        "peak_rss_bytes": 1,
        "tools": {},
    }
    report = prefix(classification, "prepare") | {"merge": merged, "recipe": classification["recipe"] | {"method": "none"}}
    page = Page(html(report))
    assert "checkpoint 88.1 %" in page.text and "Trained elsewhere" in page.text
    assert set(merged["test"].values()) <= shown(page)


def test_the_numbers_are_those_of_the_report(classification: dict[str, Any]) -> None:
    page = Page(html(classification))
    adapt, benchmark, prepare = (classification[name] for name in ("adapt", "benchmark", "prepare"))
    for found in classification["export"].values():
        wanted = {
            key: found[key]
            for key in ("size_bytes", "quality", "baseline", "rows", "drop", "test", "test_float", "flips", "seconds", "budgets")
        }
        assert numbers(wanted) <= shown(page)
        candidates = [
            {k: c[k] for k in ("size_bytes", "validation")} | ({k: c[k] for k in ("drop", "bound")} if c["scheme"] != "fp32" else {})
            for c in found["candidates"]
        ]
        assert numbers(candidates) <= shown(page)
        assert numbers(found["confidence"]) <= shown(page)
    history = [{k: v for k, v in entry.items() if k != "tie"} for entry in adapt["history"]]
    assert numbers(
        [history, adapt["test"], adapt["validation"], adapt["test_without_overlap"], adapt["baselines"], adapt["confidence"]]
    ) <= shown(page)
    assert numbers(adapt["per_label"]) <= shown(page)
    assert numbers([prepare["rows"], prepare["read"], prepare["duplicates"], prepare["overlap"], prepare["label_counts"]]) <= shown(page)
    for bundle in benchmark["bundles"]:
        latency = [{k: v for k, v in item.items() if k not in ("batch", "sequence")} for item in bundle["latency"]]
        assert numbers([latency, bundle["quality"], bundle["load_ms"], bundle["cold_start_ms"], bundle["peak_rss_bytes"]]) <= shown(page)


def test_what_people_read_is_the_number_rounded(classification: dict[str, Any]) -> None:
    page = Page(html(classification))
    read = 0
    for value, text in page.data:
        match = re.fullmatch(r"(-?[\d,]+(?:\.(\d+))?)( %| points| MB| GB)?", text)
        if match is None:
            continue
        scale = {" %": 100, " points": 100, " MB": 1e-6, " GB": 1e-9, None: 1}[match[3]]
        number = float(match[1].replace(",", ""))
        if match[2] is None and match[3] is None and abs(float(value)) >= 100:
            continue  # 200.9 ms as 201
        assert abs(number - float(value) * scale) <= 0.501 * 10 ** -len(match[2] or ""), (value, text)
        read += 1
    assert read > 200


def test_the_headline_leads_with_the_result(classification: dict[str, Any]) -> None:
    text = Page(html(classification)).text
    head = text[: text.index("The machine that measured")]
    for said in (
        "before (untrained) 6.2 %",
        "simple baseline 85.8 %",
        "adapted 88.1 %",
        "in the bundles 86.9 % to 87.6 %",
        "176 rows in scope",
    ):
        assert said in head
    for said in (
        "x86_64-vnni proven",
        "arm64 unproven",
        "the rows are too few to prove it",
        "0.50 points on test",
        "3 answers became wrong, 2 became right",
    ):
        assert said in head
    assert (
        "0.852 ms a pass median; 95 % interval 0.826 to 0.869 ms; batch 1, 9 tokens on average, 1 thread, CPUExecutionProvider, 300 runs"
        in head
    )
    assert head.count("measured on this x86_64 machine, not on arm64") == 1


def test_every_refusal_is_told_with_its_reason(classification: dict[str, Any]) -> None:
    text = Page(html(classification)).text
    assert text.count("int8-dynamic-per-channel: refused: accuracy drop +0.0827 on 112 rows; allowed 0.0100") == 2
    assert "Exporter dynamo was refused: could not trace: x < y" in text
    assert "Budget latency_ms: 5 allowed, unmeasured." in text
    assert "7-bit weights in 37 products, 1 left in float" in text
    assert "Other programs were using this machine" in text


def test_data_tells_what_was_dropped_and_cut(classification: dict[str, Any]) -> None:
    text = Page(html(classification)).text
    data = text[text.index("What was in the data") : text.index("Label by label")]
    assert "train.csv 13 the same as an earlier row 100, 101, 102" in data
    assert "train.csv 1 no label 17" in data and "train.csv 1 also in test 502" in data
    assert "Rows of test that also occur in train: 1. Their copies left train." in data
    assert "cut from train" in data
    assert "train.csv row 31, train.csv row 32" in data
    assert "3 of 219 texts are longer than 256 tokens and were cut" in data
    assert "text = “sentence” (found by name), label = “intent” (given)" in data


def test_long_lists_of_dropped_rows_are_counted(classification: dict[str, Any]) -> None:
    report = prefix(classification, "prepare")
    report["prepare"]["dropped"] = [{"file": "a.csv", "row": i, "reason": "no label"} for i in range(1, 4001)]
    page = html(report)
    assert "and 3,950 more (all in report.json)" in Page(page).text
    assert len(page) < 40_000


def test_labels_are_worst_first_and_the_kept_epoch_is_marked(classification: dict[str, Any]) -> None:
    text = Page(html(classification)).text
    labels = text[text.index("worst recall first") :]
    assert labels.index("door_unlock 11 45.5 %") < labels.index("lights_on 11 81.8 %") < labels.index("door_lock 11 100.0 %")
    assert "The weights of epoch 2 were kept" in text


def test_labels_without_rows_come_last(classification: dict[str, Any]) -> None:
    report = prefix(classification, "adapt")
    report["adapt"]["per_label"].insert(0, {"label": "never", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0, "taken_for": None})
    text = Page(html(report)).text
    assert "never 0 no rows" in text and text.index("door_lock 11 100.0 %") < text.index("never 0 no rows")


def test_generation_speaks_of_perplexity(generation: dict[str, Any]) -> None:
    page = Page(html(generation))
    assert "adapted 7.432" in page.text and "before (untrained) 31.88" in page.text and "in the bundle 7.581" in page.text
    assert "lower is better" in page.text and "Perplexity on test (58 rows)" in page.text
    assert "rise 2.00 % on test" in page.text, "7.4321 -> 7.5807"
    assert "98.8 tokens/s of answer" in page.text
    assert "32 of 32 completions the same" in page.text
    assert "weights: 0 in int4, 211 in int8; lm_head stays float" in page.text
    assert "accuracy" not in page.text.lower()
    assert {"labels", "confidence"} & page.sections == set()
    assert {432.0, 98.76, 7.5807, 31.875} <= shown(page)


def test_large_test_splits_give_two_decimals(classification: dict[str, Any]) -> None:
    for found in classification["export"].values():
        found["rows"] = 3080
    assert "adapted 88.07 %" in Page(html(classification)).text


def hostile(tree: Any, name: str) -> Any:
    """`tree` with `name` for every label, target, path, file and note."""
    if isinstance(tree, dict):
        keep = {"label_counts": lambda v: {s: {f"{name}{k}": n for k, n in c.items()} for s, c in v.items()}}
        words = ("label", "taken_for", "path", "file", "folder", "target", "model", "reason", "note", "verdict", "cpu", "out_of_scope")
        return {
            k: keep[k](v)
            if k in keep
            else f"{name}{v}"
            if k in words and isinstance(v, str)
            else [f"{name}{i}" for i in v]
            if k == "labels"
            else hostile(v, name)
            for k, v in tree.items()
        }
    return [hostile(item, name) for item in tree] if isinstance(tree, list) else tree


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "--></svg><b>", "{{ 7*7 }}{% raw %}", "$\\frac{$ &amp; \x00", "items"],
)
def test_hostile_names_stay_text(classification: dict[str, Any], name: str) -> None:
    report = hostile(copy.deepcopy(classification), name)
    report["export"] = {f"{name}{target}": facts for target, facts in report["export"].items()}
    report["notes"] = {f"{name}{stage}": [name, *notes] for stage, notes in report["notes"].items()}
    clean, page = Page(html(classification)), Page(html(report))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "b", "iframe", "object"} and tags == {tag for tag, _ in clean.tags}
    assert not any(attribute.startswith("on") for _, attrs in page.tags for attribute in attrs)
    assert page.text.count(re.sub(r"\s+", " ", name).replace("\x00", "")) > 20 or "\x00" in name


def test_nothing_is_fetched_and_nothing_runs(classification: dict[str, Any], generation: dict[str, Any]) -> None:
    for text in (html(classification), html(generation), benchmark_html(classification["benchmark"])):
        assert (
            "http:" not in text
            and "https:" not in text
            and "@import" not in text
            and "//" not in re.sub(r"/\*.*?\*/", "", text.split("</style>")[0])
        )
        page = Page(text)
        for tag, attrs in page.tags:
            assert tag not in ("script", "img", "iframe", "object", "embed")
            for name in ("href", "src", "xlink:href"):
                assert (attrs.get(name) or "#").startswith(("#", "data:,")), (tag, attrs)
        assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", text))
        assert any("default-src 'none'" in (attrs.get("content") or "") for tag, attrs in page.tags if tag == "meta")


def test_a_report_gives_the_same_bytes(classification: dict[str, Any]) -> None:
    assert html(classification) == html(copy.deepcopy(classification))


def test_plots_can_be_read_aloud_and_share_no_ids(classification: dict[str, Any]) -> None:
    page = Page(html(classification))
    drawn = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(drawn) == 5 + len(classification["export"]), "and what layers cost, for each target"
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids)), "ids are not unique in the page"
    for attrs in drawn:
        assert attrs["role"] == "img"
        assert set(str(attrs["aria-labelledby"]).split()) <= set(ids)
    used = {str(attrs["xlink:href"])[1:] for tag, attrs in page.tags if tag == "use"} | set(
        re.findall(r"url\(#([^)]*)\)", html(classification))
    )
    assert used and used <= set(ids), "a plot refers to what is not there"


def test_what_layers_cost_is_drawn_where_it_was_measured(classification: dict[str, Any]) -> None:
    page = html(classification)
    drawn = page.count("What each layer costs, and what giving it back to float gains</title>")
    assert drawn == len(classification["export"]), "one refused candidate of each target had layers given back"
    assert "encoder.layer.5.output &lt;dense&gt;: 0.31 nats; encoder.layer.0.query and 2 more: 0.02 nats" in page
    assert "1 back in float: 85.1 %, 24.8 MB; 2 back in float: 86.0 %, 26.1 MB" in page
    for facts in classification["export"].values():
        for candidate in facts["candidates"]:
            candidate.pop("sensitivity", None)
    assert "What each layer costs" not in html(classification)


def test_nothing_is_drawn_before_training(classification: dict[str, Any]) -> None:
    assert "<svg" not in html(prefix(classification, "prepare"))


def test_benchmark_page(classification: dict[str, Any], generation: dict[str, Any]) -> None:
    page = Page(benchmark_html(classification["benchmark"]))
    assert "Benchmark of 2 bundles" in page.text
    assert "arm64: measured on this x86_64 machine, not on arm64" in page.text
    assert "/home/somebody/runs/home/bundles/arm64" in page.text
    latency = [
        item[key]
        for bundle in classification["benchmark"]["bundles"]
        for item in bundle["latency"]
        for key in ("p50_ms", "p95_ms", "p99_ms")
    ]
    assert set(latency) <= shown(page)
    assert "432" in Page(benchmark_html(generation["benchmark"])).text


def test_benchmark_page_without_rows(classification: dict[str, Any]) -> None:
    for bundle in classification["benchmark"]["bundles"]:
        bundle["quality"] = None
    assert "no rows to measure it on" in Page(benchmark_html(classification["benchmark"])).text
