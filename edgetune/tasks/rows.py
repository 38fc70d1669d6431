"""The table of tasks: one row each. What a row's functions are: `edgetune.tasks`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

BATCH, SEQUENCE = "batch_size", "sequence_length"  # symbolic dimensions, spelled as transformers.js resolves them
TEXT = (  # names of columns with a text, or the first of two,
    *("text", "sentence", "utterance", "query", "content", "message", "review", "input"),
    *("sentence1", "premise", "question1", "text1", "text_a", "sentence_a"),
)
PAIR = ("text_pair", "sentence2", "hypothesis", "question2", "text2", "text_b", "sentence_b")  # with the second
SCORE = ("score", "similarity", "similarity_score", "rating", "stars", "value", "label")  # and with a number
LABELLED = ("label", "labels", "tags", "tasks")  # columns that hold names of classes


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
            name="multi-task",
            title="several questions about a text, each with labels of its own",
            family="encoder",
            auto_class="AutoModelForSequenceClassification",
            columns={"text": TEXT, "text_pair": PAIR, "tasks": ("tasks",)},
            optional=frozenset({"text_pair"}),
            asks=("text", "text_pair"),
            metric="accuracy",
            higher_is_better=True,
            example='{"text": "the app crashes at start", "tasks": {"about": "crash", "urgency": "high"}}',
            smoothing=0.1,
            imitates="numbers",
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
