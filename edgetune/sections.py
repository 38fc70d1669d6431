"""The sections of a recipe: every key with its type, its default and what it is for."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataKeys(Section):
    path: str = Field("", description="hub id, file, or folder of train/validation/test files")
    validation: str = Field("", description="file of the validation rows, where path is one file")
    test: str = Field("", description="file of the test rows, where path is one file")
    other_tests: tuple[str, ...] = Field((), description="NAME=FILE of more test rows (another domain, another language), only measured")
    header: str = Field("", description="names of the columns, with commas between, for CSV and TSV files without a header line")
    text: str = Field("", description="column with the text; found by name when left out, and said")
    text_pair: str = Field("", description="column with the second text of a pair")
    label: str = Field("", description="column with the label; found by name when left out, and said")
    labels: str = Field("", description="column with several labels a text")
    intent: str = Field("", description="column with the intent, beside tags")
    tasks: str = Field("", description="columns with a label each, with commas between, or one that holds {task: label}; task multi-task")
    score: str = Field("", description="column with a number to predict")
    tokens: str = Field("", description="column with the words, beside their tags")
    tags: str = Field("", description="column with a tag a word (BIO, IOB1, BIOES, ...)")
    spans: str = Field("", description="column with spans of the text: start, end, label")
    question: str = Field("", description="column with the question")
    context: str = Field("", description="column with the text that answers the question")
    answers: str = Field("", description="column with the answers, as SQuAD has them")
    prompt: str = Field("", description="column with the prompt (text generation)")
    completion: str = Field("", description="column with the completion (text generation)")
    source: str = Field("", description="column (of parallel files: the suffix) with the text to translate or sum up")
    target: str = Field("", description="column (of parallel files: the suffix) with its translation or summary")
    group: str = Field(
        "", description="column whose equal values stay in one split; found when it is called group, and with questions: title, context"
    )
    out_of_scope: str = Field(
        "",
        description="label of rows that belong to no class; found when it is called out_of_scope or oos",
    )
    shots: int = Field(0, ge=0, description="rows of each label that are drawn from train, by the seed (0: all)")
    descriptions: str = Field(
        "",
        description="file that says what labels mean (columns label and description), for zero-shot, verbaliser and pattern; else their names do",
    )
    encoding: str = Field("utf-8", description="encoding of the files; never guessed in silence")
    on_bad_row: Literal["error", "drop"] = Field("error", description="error | drop")
    licence: str = Field("unknown", description="licence of the data, for the model card")


class AdaptKeys(Section):
    epochs: int = Field(0, ge=0, description="passes over the training rows (0: the method's default)")
    max_steps: int = Field(0, ge=0, description="stop after so many optimizer steps (0: no limit)")
    batch_size: int = Field(0, ge=0, description="rows per optimizer step (0: the method's default)")
    accumulation: int = Field(1, ge=1, description="split each batch into so many parts, to save memory")
    learning_rate: float = Field(0.0, ge=0, description="peak learning rate (0: the method's default)")
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps over which the rate rises")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decoupled weight decay")
    clip_norm: float = Field(1.0, ge=0, description="clip the gradient's norm (0: off)")
    label_smoothing: float | None = Field(
        None, ge=0, lt=1, description="share of the target spread over all labels (none: the task's default)"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="none | balanced: rows weigh more the rarer their class is (tasks with classes)"
    )
    sampling_temperature: float = Field(
        1.0, gt=0, description="several data sets: rows of one with n come as often as n^(1/T) (1: as they are; task multi-task)"
    )
    layers: int = Field(0, ge=0, description="train the last so many layers and the head alone (0: all; method full)")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="learning rate of a layer over that of the next one up (1: the same; method full)"
    )
    gradual_unfreezing: bool = Field(
        False, description="train the head, then one layer more from the top each epoch (arXiv:1801.06146; method full)"
    )
    dropout: float | None = Field(None, ge=0, lt=1, description="dropout inside the model while it trains (none: the task's default)")
    max_length: int = Field(0, ge=0, description="tokens per row (0: what the model takes, at most 512)")
    early_stopping: int = Field(2, ge=0, description="evaluations without gain before stopping (0: off)")
    checkpoint_every: int = Field(0, ge=0, description="steps between checkpoints (0: one an epoch)")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto | fp32 | bf16")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto | cpu | cuda")
    baselines: bool = Field(True, description="also score the untrained model and the simple baseline")
    initial: Literal["pretrained", "random"] = Field(
        "pretrained", description="pretrained | random: the weights that training starts from (random: method full)"
    )
    from_scratch: bool = Field(
        False, description="first train the same architecture from random weights, by the same settings: what pre-training is worth"
    )
    generated: int = Field(100, ge=0, description="test rows that models which write are made to answer, before and after (0: off)")


class LoraKeys(Section):
    rank: int = Field(0, ge=0, description="rank of the adapter; of oft: the size of its blocks (0: the method's default)")
    alpha: int = Field(0, ge=0, description="scale of the adapter (0: the same as the rank)")
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout on the adapter's input")
    rslora: bool = Field(True, description="scale by alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732)")
    plus_ratio: float = Field(1.0, gt=0, description="learning rate of matrix B over that of A (LoRA+, arXiv:2402.12354; 1: the same)")
    modules: str = Field("all-linear", description="'all-linear', or a comma-separated list of module names")


class PromptKeys(Section):
    tokens: int = Field(16, ge=1, description="tokens without a meaning that prompt-tuning and p-tuning put before each text, and train")


class PatternKeys(Section):
    text: str = Field(
        "", description="what is around a text, with {text} and {label}, for methods verbaliser and pattern (empty: It is about {label})"
    )


class SearchKeys(Section):
    """What the recipe names is kept; only what it leaves at its default is searched."""

    trials: int = Field(0, ge=0, description="trainings that try other settings, chosen on validation; the first is the defaults (0: off)")
    minutes: float = Field(0.0, ge=0, description="begin no further trial after so many minutes (0: no limit)")


class DistillationKeys(Section):
    teacher: tuple[str, ...] = Field((), description="runs, or directories of adapted models, to learn from; several answer together")
    copies: int = Field(3, ge=0, description="altered copies of each training text; the teacher says what they mean")
    unlabelled: str = Field("", description="file or folder with more texts of the same kind, without labels")
    temperature: float = Field(2.0, gt=0, description="softens the teacher's answers (arXiv:1503.02531)")


class MetaKeys(Section):
    ways: int = Field(5, ge=2, description="labels of an episode (methods reptile and maml)")
    shots: int = Field(4, ge=1, description="rows of each of them to learn from, and as many to ask")
    steps: int = Field(3, ge=1, description="steps of learning in an episode")
    learning_rate: float = Field(1e-4, gt=0, description="learning rate inside an episode")


class ContinualKeys(Section):
    run: str = Field("", description="finished run that learns more: its model is the start, its labels stay, new ones are allowed")
    replay: float | None = Field(
        None,
        ge=0,
        description="training rows of that run that are learned again for each new one, 10 of each of its labels at least (0: none; none: as many "
        "of each of its labels as a new one has)",
    )
    ewc: float = Field(0.0, ge=0, description="how strongly weights that the old rows need are held (EWC, arXiv:1612.00796; 0: off)")


class DomainKeys(Section):
    unlabelled: str = Field("", description="file or folder with texts of the target domain, without labels (methods dann, coral, mmd)")
    strength: float | None = Field(None, ge=0, description="how much it counts that the domains are unlike (none: the method's default)")


class AugmentKeys(Section):
    """Rows that are made; validation and test stay as they are."""

    kinds: tuple[str, ...] = Field(
        (), description="more rows to learn from: typos, speech, word-dropout, synonyms, entity-swap, mixup, generation, self-training"
    )
    copies: int = Field(1, ge=1, description="altered copies of each training row, of each kind that alters or writes texts")
    noisy_test: str = Field("", description="also score the test rows altered so: typos, speech, ... (empty: typos, where kinds are given)")
    thesaurus: str = Field("", description="table of words and their synonyms (columns word and synonym; synonyms)")
    mixup_alpha: float = Field(0.4, gt=0, description="how evenly mixup mixes two rows: Beta(alpha, alpha)")
    generator: str = Field("", description="language model that writes texts (generation): hub id, directory, or .gguf file")
    unlabelled: str = Field("", description="file or folder with texts that self-training labels")
    threshold: float = Field(0.9, gt=0, le=1, description="confidence from which self-training believes its first model")


class CompressKeys(Section):
    """A number of 0 leaves that part as it is; without a number, --fit may choose one."""

    vocabulary: int | None = Field(None, ge=0, description="entries of the vocabulary that stay (0: all; none: all, but --fit may choose)")
    layers: int | None = Field(None, ge=0, description="layers that stay (0: all; none: all, but --fit may choose)")
    feed_forward: int | None = Field(None, ge=0, description="width of the feed-forward blocks (0: as it is; none: --fit may choose)")
    epochs: int = Field(
        4, ge=1, description="passes of a smaller model over the texts that it learns from; it is the mean of the ends of all but the first"
    )
    copies: int = Field(4, ge=0, description="altered copies of each training text among them; the adapted model says what they mean")
    unlabelled: str = Field("", description="file or folder with more texts of the same kind, without labels")
    ensemble: int | None = Field(
        None,
        ge=1,
        description="models that teach smaller ones together: this one, and others trained as it was with other seeds (none: 3 where "
        "training took at most ten minutes, else 1)",
    )
    teacher: tuple[str, ...] = Field(
        (), description="runs that smaller models learn from in the place of this one; several answer together"
    )
    learning_rate: float = Field(3e-4, gt=0, description="peak learning rate of a smaller model")
    temperature: float = Field(2.0, gt=0, description="softens the adapted model's answers (arXiv:1503.02531)")


class ExportKeys(Section):
    fit: bool = Field(False, description="search for the smallest and fastest form of the model that keeps its promise")
    targets: tuple[str, ...] = Field((), description="names of target profiles, or paths of your own")
    max_drop: float | None = Field(None, ge=0, le=1, description="allowed loss of the task metric, absolute")
    max_perplexity_increase: float | None = Field(None, ge=0, description="allowed relative rise of the perplexity (text generation)")
    max_size_mb: float | None = Field(None, gt=0, description="budget for the ONNX file")
    max_memory_mb: float | None = Field(None, gt=0, description="budget for the peak memory of a fresh process")
    max_latency_ms: float | None = Field(None, gt=0, description="budget for the median latency; decided only on the target's own hardware")
    schemes: tuple[str, ...] = Field((), description="try these schemes, in this order, instead of the target's")
    stop: tuple[str, ...] = Field((), description="texts that end an answer and are cut off it (text generation)")
    strict: bool = Field(False, description="refuse what the rows are too few to prove")
    reject_below: float | None = Field(
        None,
        ge=0,
        le=1,
        description="answer 'no label' under this confidence (none: chosen on validation; 0: off)",
    )
    golden: Literal["synthetic", "validation"] = Field(
        "synthetic",
        description="texts of the golden vectors; 'validation' ships rows of your data",
    )
