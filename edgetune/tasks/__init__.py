"""What can be learned: one row a task, one module a row.

A task's module holds these functions; nothing else in edgetune knows a task by name.

    encode(rows, tokenizer, *, max_length, labels) -> Encoded
    collate(examples, pad_id) -> dict of numpy arrays, int64 unless said otherwise: those of INPUTS that the model reads, and what it learns
    loss(outputs, batch, smoothing) -> torch scalar, the mean over what is learned from (batch["labels"] != -100); `outputs` by name
    score(forward, examples, pad_id, size) -> Scores, `size` rows at a time; `forward(inputs by name)` gives float32 outputs by name
    metrics(scores, labels) -> {name: value}, named as scikit-learn and seqeval name them, fractions

and, where the task has them:

    classes(rows) -> the labels, in their order
    quality(scores) -> the metric that the gate decides, where it is no sum(value) / sum(weight)
    report(scores, labels) -> a row a label
    calibrate(scores, recipe) -> what an app needs beside the outputs (a temperature, thresholds), chosen on the scores of validation
    calibrated(scores, facts) -> metrics of what the app then answers
    weights(examples, labels) -> Weights, and loss(outputs, batch, smoothing, weights): of tasks with classes, see `balance`
    asked(rows, tokenizer, max_length) -> [generated.Asked], answer(row) -> text: of tasks that write, see `generated`
    training(examples, model) -> what learns in the module's place, where a model learns in another unit than it answers in: it has
        `collate`, `loss` and `score`, and `finish(model)` brings the trained model to the unit of its answers
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

import numpy as np

from edgetune.table import pick

Arrays = Mapping[str, np.ndarray]
Forward = Callable[[Arrays], Arrays]
Weights = tuple[np.ndarray, ...]  # of classes, an array for each output
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")  # what a model may read of a batch
BATCH, SEQUENCE = "batch_size", "sequence_length"  # symbolic dimensions, spelled as transformers.js resolves them
TEXT = (  # names of columns with a text, or the first of two,
    *("text", "sentence", "utterance", "query", "content", "message", "review", "input"),
    *("sentence1", "premise", "question1", "text1", "text_a", "sentence_a"),
)
PAIR = ("text_pair", "sentence2", "hypothesis", "question2", "text2", "text_b", "sentence_b")  # with the second
SCORE = ("score", "similarity", "similarity_score", "rating", "stars", "value", "label")  # and with a number
LABELLED = ("label", "labels", "tags")  # columns that hold names of classes


@dataclass(frozen=True)
class Task:
    name: str
    title: str
    family: Literal["encoder", "decoder", "seq2seq"]
    auto_class: str  # of transformers, or "package.module:Class"
    columns: Mapping[str, tuple[str, ...]]  # column (what it holds: edgetune.data.kinds) -> names under which it is found, best first
    metric: str  # decides the accuracy gate and early stopping
    higher_is_better: bool
    example: str  # one row, as JSON, for `edgetune tasks`
    asks: tuple[str, ...] = ("text",)  # what an app gives
    optional: frozenset[str] = frozenset()  # columns that may be absent
    outputs: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"logits": (BATCH,)})  # output -> its symbolic dimensions
    tie: str = "log_loss"  # the metric, lower is better, that decides between equal ones
    pipeline_tag: str = ""  # what Hugging Face calls it, when that is another name
    markers: tuple[str, ...] = ()  # tokens of its texts that the tokenizer gets as special ones
    config: Mapping[str, Any] = field(default_factory=dict)  # what of the model's configuration it sets
    smoothing: float = 0.0  # of the labels, while it is learned
    dropout: float = 0.0  # likewise, inside the model
    imitates: Literal["", "classes", "labels", "numbers"] = ""  # as what a smaller model learns its one output of a row; "": it can't

    @property
    def module(self) -> ModuleType:
        return import_module(f"edgetune.tasks.{self.name.replace('-', '_')}")

    @property
    def labelled(self) -> bool:
        return any(column in self.columns for column in LABELLED)

    @property
    def tag(self) -> str:
        return self.pipeline_tag or self.name


# Architectures, in a model's configuration, that stand beside the class of their task.
OWN = {"PooledClassifier": "edgetune.tasks.pooled_classifier:PooledClassifier"}


def loader(task: Task, architectures: Sequence[str] | None = None) -> Any:
    """What loads a model for `task`: an Auto class of transformers, or a class of edgetune's own with the same methods."""
    own = (OWN[name] for name in architectures or () if name in OWN)
    module, _, name = next(own, task.auto_class).rpartition(":")
    return getattr(import_module(module or "transformers"), name)


@dataclass(frozen=True)
class Encoded:
    """Rows as token ids. `cut`: rows that lost tokens; `left_out`: (row index, reason) of rows that cannot be used; `lost`: words with a tag
    that no token is left of."""

    examples: list[dict[str, Any]]
    cut: int = 0
    left_out: list[tuple[int, str]] = field(default_factory=list)
    lost: int = 0


@dataclass(frozen=True)
class Scores:
    """What a model said about some rows, row by row, so that two models can be compared in pairs.

    `value` [n] float64 and `weight` [n] float64: the metric that the gate decides is sum(value) / sum(weight)
    (classification: right or wrong, weight 1; generation: negative log-likelihood and number of tokens), unless the task has a `quality`.
    `logits` [m, classes] float32 and `target` [m] int64 where there are classes, else None: one line a row, or `lines` [n] int64 of them
    (tokens of a row). Several classes a row: `target` [m, classes], 0 or 1. `extra` [n, k] float64: what else the task's metrics are made of.
    """

    value: np.ndarray
    weight: np.ndarray
    logits: np.ndarray | None = None
    target: np.ndarray | None = None
    lines: np.ndarray | None = None
    extra: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Scores:
        """Those of some rows, by their indices."""
        places = rows
        if self.lines is not None:
            ends = self.lines.cumsum()
            spans = [np.arange(ends[row] - self.lines[row], ends[row]) for row in rows]
            places = np.concatenate(spans) if spans else rows
        of_lines = {name: part[places] for name in ("logits", "target") if (part := getattr(self, name)) is not None}
        of_rows = {name: part[rows] for name in ("lines", "extra") if (part := getattr(self, name)) is not None}
        return Scores(self.value[rows], self.weight[rows], **of_lines, **of_rows)


def joined(parts: Sequence[Scores]) -> Scores:
    """The scores of several sets of rows as one."""
    if len(parts) == 1:
        return parts[0]
    columns = {part.name: [getattr(one, part.name) for one in parts] for part in fields(Scores)}
    return Scores(**{name: np.concatenate(column) for name, column in columns.items() if all(part is not None for part in column)})


def flips(before: Scores, after: Scores) -> dict[str, int]:
    """How many rows went from right to wrong and back; nothing where a row is neither, but a number or several answers."""
    values, weights = (np.concatenate([getattr(one, name) for one in (before, after)]) for name in ("value", "weight"))
    if before.logits is None or not np.isin(values, (0, 1)).all() or not np.isin(weights, (0, 1)).all():
        return {}
    known = before.weight > 0
    gained = (after.value - before.value)[known]
    return {"right_to_wrong": int((gained < 0).sum()), "wrong_to_right": int((gained > 0).sum())}


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="text-classification",
            title="one label for a text, or for a pair",
            family="encoder",
            auto_class="AutoModelForSequenceClassification",
            columns={"text": TEXT, "text_pair": PAIR, "label": ("label", "labels", "category", "intent", "class", "target", "sentiment")},
            optional=frozenset({"text_pair"}),
            asks=("text", "text_pair"),
            metric="accuracy",
            higher_is_better=True,
            example='{"text": "turn on the kitchen light", "label": "lights_on"}',
            smoothing=0.1,
            imitates="classes",
        ),
        Task(
            name="multi-label-classification",
            title="any number of labels for a text, or for a pair",
            family="encoder",
            auto_class="AutoModelForSequenceClassification",
            columns={"text": TEXT, "text_pair": PAIR, "labels": ("labels", "tags", "categories", "topics", "classes", "label")},
            optional=frozenset({"text_pair"}),
            asks=("text", "text_pair"),
            metric="micro_f1",
            higher_is_better=True,
            example='{"text": "play some jazz in the kitchen", "labels": ["music", "kitchen"]}',
            pipeline_tag="text-classification",
            config={"problem_type": "multi_label_classification"},
            smoothing=0.1,
            imitates="labels",
        ),
        Task(
            name="text-regression",
            title="a number for a text, or for a pair",
            family="encoder",
            auto_class="AutoModelForSequenceClassification",
            columns={"text": TEXT, "text_pair": PAIR, "score": SCORE},
            optional=frozenset({"text_pair"}),
            asks=("text", "text_pair"),
            metric="spearman",
            higher_is_better=True,
            example='{"text": "the room was clean, the staff rude", "score": 3.5}',
            tie="mean_squared_error",
            pipeline_tag="text-classification",
            config={"num_labels": 1, "problem_type": "regression"},
            imitates="numbers",
        ),
        Task(
            name="sentence-similarity",
            title="a vector for a text, near those of texts that mean the same",
            family="encoder",
            auto_class="edgetune.tasks.sentence_encoder:SentenceEncoder",
            columns={"text": TEXT, "text_pair": PAIR, "score": SCORE},
            metric="spearman",
            higher_is_better=True,
            example='{"text": "a plane is taking off", "text_pair": "an air plane is taking off", "score": 5.0}',
            outputs={"sentence_embedding": (BATCH,)},
            tie="correlation_distance",
            imitates="numbers",
        ),
        Task(
            name="relation-extraction",
            title="the relation between two marked entities",
            family="encoder",
            auto_class="edgetune.tasks.entity_classifier:EntityClassifier",
            columns={
                "text": ("text", "sentence"),
                "label": ("label", "relation", "class"),
            },
            metric="macro_f1",
            higher_is_better=True,
            example='{"text": "the <e1>lid</e1> of a <e2>jar</e2>", "label": "Component-Whole(e1,e2)"}',
            pipeline_tag="text-classification",
            markers=("<e1>", "</e1>", "<e2>", "</e2>"),
            smoothing=0.1,
            imitates="classes",
        ),
        Task(
            name="token-classification",
            title="entities in a text",
            family="encoder",
            auto_class="AutoModelForTokenClassification",
            columns={
                "text": ("text", "sentence", "utterance", "query"),
                "tags": ("tags", "ner_tags", "slots", "slot_tags", "bio", "iob", "labels"),
            },
            dropout=0.1,
            metric="f1",
            higher_is_better=True,
            example='{"text": "play Moon River", "tokens": ["play", "Moon", "River"], "tags": ["O", "B-track", "I-track"]}',
            outputs={"logits": (BATCH, SEQUENCE)},
        ),
        Task(
            name="question-answering",
            title="the answer to a question, as it stands in a context",
            family="encoder",
            auto_class="AutoModelForQuestionAnswering",
            columns={
                "question": ("question", "query"),
                "context": ("context", "passage", "paragraph", "document"),
                "answers": ("answers", "answer"),
            },
            metric="f1",
            higher_is_better=True,
            example='{"question": "Who wrote it?", "context": "Ada wrote it.", "answers": {"text": ["Ada"], "answer_start": [0]}}',
            asks=("question", "context"),
            outputs={"start_logits": (BATCH, SEQUENCE), "end_logits": (BATCH, SEQUENCE)},
            tie="loss",
        ),
        Task(
            name="fill-mask",
            title="a word for a gap; goes on with an encoder's pre-training",
            family="encoder",
            auto_class="AutoModelForMaskedLM",
            columns={"text": ("text",)},
            metric="perplexity",
            higher_is_better=False,
            example='{"text": "turn on the kitchen light"}',
            outputs={"logits": (BATCH, SEQUENCE)},
            tie="loss",
        ),
        Task(
            name="intent-and-slots",
            title="what a sentence asks for, and with what",
            family="encoder",
            auto_class="edgetune.tasks.two_heads:IntentAndSlots",
            columns={
                "text": ("text", "sentence", "utterance", "query"),
                "intent": ("intent", "label"),
                "tags": ("tags", "slots", "slot_tags", "ner_tags", "bio", "iob"),
            },
            dropout=0.1,
            metric="frame_accuracy",
            higher_is_better=True,
            example='{"tokens": ["play", "Moon", "River"], "tags": ["O", "B-track", "I-track"], "intent": "play", "text": "play Moon River"}',
            outputs={"logits": (BATCH,), "slot_logits": (BATCH, SEQUENCE)},
        ),
        Task(
            name="text-generation",
            title="a text that answers a prompt",
            family="decoder",
            auto_class="AutoModelForCausalLM",
            columns={
                "prompt": ("prompt", "instruction", "question", "input", "nl"),
                "completion": ("completion", "response", "answer", "output", "cm"),
            },
            metric="perplexity",
            higher_is_better=False,
            example='{"prompt": "list all png files", "completion": "find . -name \'*.png\'"}',
            outputs={"logits": (BATCH, SEQUENCE)},
            tie="loss",
        ),
        Task(
            name="text2text-generation",
            title="a text made of another one: a summary, a translation",
            family="seq2seq",
            auto_class="AutoModelForSeq2SeqLM",
            columns={
                "source": ("source", "src", "document", "article", "dialogue"),
                "target": ("target", "tgt", "summary", "translation", "highlights", "section_text"),
            },
            metric="perplexity",
            higher_is_better=False,
            example='{"source": "A man sleeps on a bench.", "target": "Ein Mann schläft auf einer Bank."}',
            outputs={"logits": (BATCH, SEQUENCE)},
            tie="loss",
        ),
    )
}


def get(name: str) -> Task:
    return pick(TASKS, name, "task")


def of(name: str, columns: Collection[str]) -> Task:
    """The task as data with these columns has it: a text that may be absent, and is, is not asked for."""
    task = get(name)
    return replace(task, asks=tuple(column for column in task.asks if column in columns or column not in task.optional))


def batches(examples: Sequence[Mapping[str, Any]], size: int) -> list[list[int]]:
    """Indices of `examples` in batches of like length, shortest first."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["input_ids"]))
    return [order[start : start + size] for start in range(0, len(order), size)]


def pad(rows: Sequence[Sequence[int]], value: int) -> np.ndarray:
    """Rows of unequal length -> [len(rows), longest] int64, padded on the right with `value`."""
    out = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return out


def inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What of `batch` a model reads."""
    return {name: batch[name] for name in INPUTS if name in batch}


def padded(examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
    """input_ids, attention_mask and, where the examples have them, token_type_ids: [b, longest] int64, padded on the right."""
    ids = [example["input_ids"] for example in examples]
    found = {"input_ids": pad(ids, pad_id), "attention_mask": pad([[1] * len(row) for row in ids], 0)}
    if "token_type_ids" in examples[0]:
        found["token_type_ids"] = pad([example["token_type_ids"] for example in examples], 0)
    return found


def texts(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], ...]:
    """The texts of `rows`, and their second texts where they have one."""
    names = ("text", "text_pair") if rows and "text_pair" in rows[0] else ("text",)
    return tuple([row[name] for row in rows] for name in names)


def tokens(tokenizer: Any, *texts: Sequence[str], max_length: int) -> tuple[list[dict[str, Any]], int]:
    """(examples of the texts, or of the pairs of texts, cut to `max_length` tokens; how many were cut).

    A pair has `token_type_ids` where the model tells its two parts apart by them.
    """
    if not texts[0]:
        return [], 0
    kept = tokenizer(*texts, truncation=True, max_length=max_length)
    whole = tokenizer(*texts, truncation=False, verbose=False)["input_ids"]
    names = ["input_ids", *(["token_type_ids"] if len(texts) > 1 and "token_type_ids" in kept else [])]
    examples = [dict(zip(names, row, strict=True)) for row in zip(*(kept[name] for name in names), strict=True)]
    return examples, sum(len(a) > len(b["input_ids"]) for a, b in zip(whole, examples, strict=True))


def asked(row: Mapping[str, Any], task: Task) -> tuple[str, ...]:
    """What an app gives of `row`: the fields of `task.asks` that it has."""
    return tuple(row[name] for name in task.asks if name in row)


def said_beside(task: Task, validation: Scores, test: Scores, recipe: Any) -> dict[str, Any]:
    """`confidence`: what the task's `calibrate` chose on validation, and under `test` how the answers made with it do; nothing without one."""
    if not hasattr(task.module, "calibrate"):
        return {}
    chosen = task.module.calibrate(validation, recipe)
    return {"confidence": {**chosen, "test": task.module.calibrated(test, chosen)}}
