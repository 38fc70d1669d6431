"""Ways of changing weights: one row a method.

attach(recipe, labels) -> model      the base, changed as the method asks; requires_grad marks what will be trained
save(model, folder)                  only what training changed (an adapter) or all of it (a checkpoint), as safetensors
restore(recipe, folder, labels) -> model      what `save` wrote, loaded again
merge(recipe, folder, labels) -> Merge        the plain float32 model, and the model that it must equal
begin(model, given)         where there is more to do before training than the base and the labels can tell: in place, on the texts of train

and, where a method learns from something else than rows:

training(lesson) -> what learns in the task's place: its `examples` (what it calls them: `unit`), `collate`, `loss`, `score`; where it
changes on the way, `at(share of the training that is done)`; where the trained model must be brought to the task's answers, `finish(model)`; and
in the place of `collate` and `loss`, `gradients(model, examples, device)`, which leaves them in the weights and returns the mean loss
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.errors import RecipeError
from edgetune.table import pick
from edgetune.tasks import TASKS, Task

if TYPE_CHECKING:
    from edgetune.methods.device import Device
    from edgetune.recipe import Recipe

# The parts of a classifier that its task brings along, as the architectures of transformers call them.
HEADS = ("classifier", "slot_classifier", "score", "pre_classifier", "pooler", "pooling_head", "qa_outputs")
POOLERS = ("pooler", "pooling_head")  # which are no head alone
EPISODIC = ("reptile", "maml")  # methods that learn from small tasks: see `meta`
PROMPTS = ("prompt-tuning", "p-tuning")  # methods that train tokens of their own before each text
PATTERNS = ("verbaliser", "pattern")  # methods that ask a language model in words
UNTAUGHT = ("zero-shot", "verbaliser")  # methods that learn from no row
DOMAIN = ("dann", "coral", "mmd")  # methods that learn from texts of another domain too: `edgetune.methods.domain`


def heads(names: Iterable[str]) -> set[str]:
    """Those of HEADS among the dotted `names` of a model's parts; none where only a pooler is there, which nothing reads."""
    found = {part for name in names for part in name.split(".")} & set(HEADS)
    return found if found - set(POOLERS) else set()


@dataclass(frozen=True)
class Defaults:
    """What the recipe's zeros mean."""

    epochs: int
    batch_size: int
    learning_rate: float
    least_steps: int = 0  # more epochs than `epochs` when the rows are few


RANK = 16
SEARCHED = ("adapt.learning_rate", "adapt.epochs", "adapt.label_smoothing")


@dataclass(frozen=True)
class Lesson:
    """What a method has to learn from: train `rows` as the data has them, and as `examples` (token ids). `scratch` is kept while a run is not done."""

    recipe: Recipe
    task: Task
    labels: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    examples: Sequence[Mapping[str, Any]]
    tokenizer: Any
    max_length: int
    device: Device
    scratch: Path


@dataclass(frozen=True)
class Method:
    name: str
    title: str
    when: str
    defaults: Mapping[str, Defaults]  # by family of model: the families it serves
    folder: str  # what it leaves in the run directory
    module: str
    tasks: frozenset[str] = frozenset()  # the only ones that it serves; none named: all of its families
    least_rows: int = 1  # of each label, to learn from
    rank: int = RANK  # of an adapter
    tokenizer: str = ""  # "package.module:function" of a tokenizer and a recipe, which gives one that puts tokens of its own around texts
    check: str = ""  # "package.module:function" of a recipe, which raises where its base is of no use to the method; loads no weight
    searched: tuple[str, ...] = SEARCHED  # the keys of the recipe that `edgetune.methods.search` varies
    sections: tuple[str, ...] = ()  # of the recipe, which are for it alone and its like
    unused: tuple[str, ...] = ()  # keys of the recipe that have no effect

    def fits(self, task: Task) -> bool:
        return task.family in self.defaults and (not self.tasks or task.name in self.tasks)


WITHOUT_MARKERS = frozenset(name for name, task in TASKS.items() if not task.markers)  # new tokens that lora trains beside its adapter
PROMPTED = frozenset({"text-classification", "multi-label-classification", "text-regression", "text-generation"})

STEPS = tuple(  # keys of a training by steps
    f"adapt.{name}"
    for name in (
        *("epochs", "max_steps", "accumulation", "learning_rate", "warmup", "weight_decay", "clip_norm", "label_smoothing"),
        *("dropout", "early_stopping", "checkpoint_every"),
    )
)
LOW_RANK = {"encoder": Defaults(6, 32, 2e-3, least_steps=500), "decoder": Defaults(2, 8, 2e-4), "seq2seq": Defaults(4, 16, 5e-4)}

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="full",
            title="fine-tune every weight",
            when="encoders up to 150 M parameters: the best accuracy, and fast enough on a CPU",
            defaults={"encoder": Defaults(5, 32, 2e-4, least_steps=500), "decoder": Defaults(1, 8, 2e-5), "seq2seq": Defaults(3, 16, 1e-4)},
            folder="checkpoint",
            module="edgetune.methods.full",
        ),
        Method(
            name="head",
            title="frozen base, new head",
            when="very little time or memory; features of the base are good enough",
            defaults={"encoder": Defaults(8, 32, 2e-3, least_steps=500)},
            folder="checkpoint",
            module="edgetune.methods.full",
        ),
        Method(
            name="linear-probe",
            title="frozen base, a logistic regression on the mean of its states as the head (arXiv:1610.01644)",
            when="seconds of training, or a few rows a label; on a base that compares texts it is hard to beat at 8 rows",
            defaults={"encoder": Defaults(1, 32, 1e-4)},
            folder="checkpoint",
            module="edgetune.methods.linear_probe",
            tasks=frozenset({"text-classification"}),
            searched=(),
            unused=STEPS,
        ),
        Method(
            name="zero-shot",
            title="frozen base, the descriptions of labels as the head: no row is learned from (arXiv:1909.00161)",
            when="labels that say what a text is about, and no rows yet but those that test it",
            defaults={"encoder": Defaults(1, 32, 1e-4)},
            folder="checkpoint",
            module="edgetune.methods.zero_shot",
            tasks=frozenset({"text-classification"}),
            searched=(),
            unused=STEPS,
        ),
        Method(
            name="few-shot",
            title="pairs of texts, alike or not, then a linear head (SetFit, arXiv:2209.11055)",
            when="2 to 32 rows a label of text-classification",
            defaults={"encoder": Defaults(3, 32, 1e-4, least_steps=200)},
            folder="checkpoint",
            module="edgetune.methods.few_shot",
            tasks=frozenset({"text-classification"}),
            least_rows=2,
            searched=("adapt.learning_rate", "adapt.epochs"),
        ),
        Method(
            name="verbaliser",
            title="frozen language model, a pattern with a gap, a word for each label: no row is learned from (arXiv:2001.07676)",
            when="no rows yet, labels that are no topics, and a base that is a language model",
            defaults={"encoder": Defaults(1, 32, 1e-4)},
            folder="checkpoint",
            module="edgetune.methods.pattern",
            sections=("pattern",),
            tasks=frozenset({"text-classification"}),
            tokenizer="edgetune.methods.pattern:patterned",
            check="edgetune.methods.pattern:check",
            searched=(),
            unused=STEPS,
        ),
        Method(
            name="pattern",
            title="pattern-exploiting training: a verbaliser that goes on to learn from rows (PET, arXiv:2001.07676)",
            when="2 to 32 rows a label, and a base that is a language model rather than a sentence encoder",
            defaults={"encoder": Defaults(5, 16, 2e-5, least_steps=100)},
            folder="checkpoint",
            module="edgetune.methods.pattern",
            sections=("pattern",),
            tasks=frozenset({"text-classification"}),
            tokenizer="edgetune.methods.pattern:patterned",
            check="edgetune.methods.pattern:check",
        ),
        *(
            Method(
                name=name,
                title=title,
                when="a start that learns new labels from a few rows: many labels now, others later, with --from",
                defaults={"encoder": Defaults(2, 2, 5e-5)},
                folder="checkpoint",
                module="edgetune.methods.meta",
                sections=("meta",),
                tasks=frozenset({"text-classification"}),
                least_rows=2,
                searched=("adapt.learning_rate", "adapt.epochs"),
                unused=("adapt.accumulation",),
            )
            for name, title in (
                ("reptile", "small tasks drawn from the labels, and steps towards what each ended at (arXiv:1803.02999)"),
                ("maml", "small tasks drawn from the labels, and the gradient of what is asked after each (first order, arXiv:1703.03400)"),
            )
        ),
        Method(
            name="distillation",
            title="learn what an adapted model answers, or several together (arXiv:1503.02531)",
            when="a smaller base than the one that does well, or one model with the accuracy of several",
            defaults={"encoder": Defaults(4, 32, 3e-4, least_steps=500)},
            folder="checkpoint",
            module="edgetune.methods.distillation",
            sections=("distillation",),
            tasks=frozenset({"text-classification", "multi-label-classification", "relation-extraction"}),
            searched=("adapt.learning_rate", "adapt.epochs"),
        ),
        *(
            Method(
                name=name,
                title=title,
                when=when,
                defaults={"encoder": Defaults(5, 32, 2e-4, least_steps=500)},
                folder="checkpoint",
                module="edgetune.methods.domain",
                sections=("domain",),
                tasks=frozenset({"text-classification"}),
            )
            for name, title, when in (
                (
                    "dann",
                    "domains made alike by a classifier that must not tell them apart (arXiv:1505.07818)",
                    "labels of one domain, texts of another",
                ),
                ("coral", "domains made alike in their covariances (arXiv:1607.01719)", "as dann, with no second classifier"),
                ("mmd", "domains made alike in their distributions, by kernels (arXiv:1502.02791)", "as dann, with no second classifier"),
            )
        ),
        Method(
            name="lora",
            title="low-rank adapters on every linear layer (arXiv:2106.09685), rank-stabilised (arXiv:2312.03732)",
            when="decoders, or many variants of one base: the adapter is a few MB",
            defaults=LOW_RANK,
            folder="adapter",
            module="edgetune.methods.adapters",
            sections=("lora",),
            searched=(*SEARCHED, "lora.rank"),
        ),
        Method(
            name="qlora",
            title="LoRA on a base held in 4 bits (arXiv:2305.14314)",
            when="a GPU whose memory the float model would not fit: 1 B parameters and more",
            defaults={family: LOW_RANK[family] for family in ("encoder", "decoder")},
            folder="adapter",
            module="edgetune.methods.adapters",
            sections=("lora",),
            searched=(*SEARCHED, "lora.rank"),
        ),
        Method(
            name="dora",
            title="LoRA that learns directions and lengths apart (arXiv:2402.09353)",
            when="a low rank, where lora stays behind full; its steps are slower",
            defaults=LOW_RANK,
            folder="adapter",
            module="edgetune.methods.adapters",
            sections=("lora",),
            searched=(*SEARCHED, "lora.rank"),
        ),
        Method(
            name="oft",
            title="rotations of blocks of every linear layer's input (orthogonal fine-tuning, arXiv:2306.07280)",
            when="what the base knows shall change least; its steps are slower than those of lora",
            defaults={"encoder": Defaults(6, 32, 2e-3, least_steps=500), "decoder": Defaults(2, 8, 4e-4), "seq2seq": Defaults(4, 16, 1e-3)},
            folder="adapter",
            module="edgetune.methods.adapters",
            sections=("lora",),
            tasks=WITHOUT_MARKERS,
            rank=32,
            searched=(*SEARCHED, "lora.rank"),
        ),
        Method(
            name="ia3",
            title="a factor for each key, value and inner neuron (arXiv:2205.05638)",
            when="the smallest adapter of a large model, few rows",
            defaults={"encoder": Defaults(8, 32, 1e-2, least_steps=500), "decoder": Defaults(3, 8, 5e-3), "seq2seq": Defaults(5, 16, 5e-3)},
            folder="adapter",
            module="edgetune.methods.adapters",
            tasks=WITHOUT_MARKERS,
            check="edgetune.methods.adapters:check_ia3",
        ),
        Method(
            name="prompt-tuning",
            title="vectors before each text, as tokens of the vocabulary (arXiv:2104.08691)",
            when="large models; on small ones everything else is better",
            defaults={"encoder": Defaults(8, 32, 1e-2, least_steps=500), "decoder": Defaults(3, 8, 3e-2)},
            folder="adapter",
            module="edgetune.methods.adapters",
            sections=("prompt",),
            tasks=PROMPTED,
            tokenizer="edgetune.methods.prompts:prompted",
            check="edgetune.methods.model:load_tokenizer",
        ),
        Method(
            name="p-tuning",
            title="prompt-tuning whose vectors come from a small network while they learn (arXiv:2103.10385)",
            when="as prompt-tuning, where that does not get going",
            defaults={"encoder": Defaults(8, 32, 2e-3, least_steps=500), "decoder": Defaults(3, 8, 1e-3)},
            folder="adapter",
            module="edgetune.methods.adapters",
            sections=("prompt",),
            tasks=PROMPTED,
            tokenizer="edgetune.methods.prompts:prompted",
            check="edgetune.methods.model:load_tokenizer",
        ),
    )
}


# What is known by name, and why it is not a row: (reason, what fits).
REFUSED = {
    "prefix-tuning": (
        "it trains keys and values for the attention of each layer, which no weight of a plain model and no input of its graph can hold",
        "--method prompt-tuning or p-tuning, whose tokens become part of the vocabulary; lora learns more",
    ),
    "adalora": (
        "which ranks it gives up depends on sums over all steps, so that a killed run would not end as it had begun",
        "--method lora --search 8 tries ranks",
    ),
}


def get(name: str) -> Method:
    if name in REFUSED:
        raise RecipeError(f"method {name} is not offered: {REFUSED[name][0]}", mend=REFUSED[name][1])
    return pick(METHODS, name, "method")


def rank(recipe: Recipe) -> int:
    """Of the recipe's adapter: what it says, else what the method starts from."""
    return recipe.lora.rank or (METHODS[recipe.method].rank if recipe.method in METHODS else RANK)


def ranked(recipe: Recipe) -> Recipe:
    """The recipe with the rank written out; those that `auto` chooses from start from one."""
    return recipe.model_copy(update={"lora": recipe.lora.model_copy(update={"rank": rank(recipe)})})
