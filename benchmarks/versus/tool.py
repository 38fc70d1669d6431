"""One rival of edgetune, in its own environment: build its int8 model, time it, score it.

    python tool.py NAME build MERGED WORK          MERGED: a Hugging Face directory; WORK: where the tool's files go
    python tool.py NAME score MERGED WORK ROWS     arg max for each row, as JSON
    python tool.py NAME time MERGED WORK TIMING --benchmark ...      the flags and the JSON of run.py; TIMING: edgetune/runtime/timing.py

Imports nothing of edgetune but its timing loop, which needs the standard library only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
MAX_LENGTH = 128
OPSET = 20
CALIBRATION = 300  # training rows, NNCF's own default
OPERATORS = ("MatMul", "Gemm", "Gather")
Answer = Callable[[list[list[int]]], Any]  # token ids -> logits


def tokenizer(merged: Path) -> Any:
    from tokenizers import Tokenizer

    words = Tokenizer.from_file(str(merged / "tokenizer.json"))
    words.no_padding()
    words.enable_truncation(MAX_LENGTH)
    return words


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def torch_model(merged: Path) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    if json.loads((merged / "config.json").read_text("utf-8"))["architectures"] == ["EntityClassifier"]:
        return relation_model(merged)
    return AutoModelForSequenceClassification.from_pretrained(merged, dtype=torch.float32, attn_implementation="eager").eval()


def relation_model(merged: Path) -> Any:
    """The classifier over the states of <e1> and <e2>, which no class of transformers is: as its user would write it."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel
    from transformers.modeling_outputs import SequenceClassifierOutput

    class Relations(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = AutoModel.from_pretrained(merged, dtype=torch.float32, attn_implementation="eager", add_pooling_layer=False)
            weights = load_file(merged / "model.safetensors")
            self.classifier = torch.nn.Linear(*reversed(weights["classifier.weight"].shape))
            self.classifier.load_state_dict({name: weights[f"classifier.{name}"] for name in ("weight", "bias")})
            self.opening = [self.encoder.config.marker_token_id[place] for place in (0, 2)]

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            masks = [(input_ids == token).unsqueeze(1).to(hidden.dtype) for token in self.opening]
            states = [(mask @ hidden / mask.sum(-1, keepdim=True).clamp(min=1)).squeeze(1) for mask in masks]
            return SequenceClassifierOutput(logits=self.classifier(torch.cat(states, dim=-1)))

    return Relations().eval()


def logits_only(merged: Path) -> Any:
    """The model as exporters take it: ids and mask in (a mask of None: all are read), logits out."""
    import torch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = torch_model(merged)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    return Graph().eval()


def float_graph(merged: Path, path: Path) -> Path:
    """The plain export: eager attention, opset 20."""
    import torch

    batch, sequence = torch.export.Dim("batch_size"), torch.export.Dim("sequence_length", max=512)
    ids = torch.ones((2, 16), dtype=torch.int64)
    program = torch.onnx.export(
        logits_only(merged),
        (ids, torch.ones_like(ids)),
        dynamo=True,
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes=({0: batch, 1: sequence}, {0: batch, 1: sequence}),
        opset_version=OPSET,
        verbose=False,
    )
    program.save(str(path), external_data=False)
    return path


def build_onnxruntime(merged: Path, work: Path, train: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(float_graph(merged, work / "float.onnx"))
    model.ir_version = 10
    del model.graph.value_info[:]
    quantize_dynamic(
        model,
        work / "model.onnx",
        op_types_to_quantize=list(OPERATORS),
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    (work / "float.onnx").unlink()


def build_olive(merged: Path, work: Path, train: Path) -> None:
    from olive.workflows import run

    config = json.loads((merged / "config.json").read_text("utf-8"))
    io = {
        "input_names": ["input_ids", "attention_mask"],
        "output_names": ["logits"],
        "input_shapes": [[2, 16], [2, 16]],
        "input_types": ["int64", "int64"],
        "dynamic_axes": {name: {"0": "batch_size", "1": "sequence_length"} for name in ("input_ids", "attention_mask")},
    }
    fusion = {"type": "OrtTransformersOptimization", "model_type": "bert", "num_heads": config["num_attention_heads"]}
    run(
        {
            "input_model": {"type": "HfModel", "model_path": str(merged), "task": "text-classification", "io_config": io},
            "passes": {
                "conversion": {"type": "OnnxConversion", "target_opset": OPSET},
                "fusion": {**fusion, "hidden_size": config["hidden_size"]},
                "quantization": {"type": "OnnxDynamicQuantization", "per_channel": True, "op_types_to_quantize": list(OPERATORS)},
            },
            "output_dir": str(work / "olive"),
            "cache_dir": str(work / "cache"),
            "log_severity_level": 3,
        }
    )
    (found,) = (work / "olive").rglob("*.onnx")
    found.rename(work / "model.onnx")


def build_openvino(merged: Path, work: Path, train: Path) -> None:
    """From the float graph that WORK/../onnxruntime's build would quantise: `float.onnx` is put there by versus.py."""
    import nncf
    import numpy as np
    import openvino

    words = tokenizer(merged)

    def feeds(row: dict[str, Any]) -> dict[str, np.ndarray]:
        ids = np.array([words.encode(row["text"]).ids])
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    model = openvino.convert_model(work / "float.onnx")
    data = nncf.Dataset(rows(train)[:: max(1, len(rows(train)) // CALIBRATION)][:CALIBRATION], feeds)
    openvino.save_model(nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER), work / "model.xml")
    (work / "float.onnx").unlink()


def load_openvino(merged: Path, work: Path) -> Answer:
    import numpy as np
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    model = openvino.compile_model(openvino.Core().read_model(work / "model.xml"), "CPU", options)
    return lambda batch: model([*padded(batch, np)])[0]


def build_torch(merged: Path, work: Path, train: Path) -> None:
    import shutil

    for path in (*merged.glob("*.safetensors"), merged / "config.json"):
        shutil.copyfile(path, work / path.name)


def load_torch(merged: Path, work: Path) -> Answer:
    return eager(torch_model(work))


def build_torchao(merged: Path, work: Path, train: Path) -> None:
    import torch

    torch.save(quantised(merged).state_dict(), work / "model.pt")


def load_torchao(merged: Path, work: Path) -> Answer:
    """torchao makes the int8 weights again at load: the state is what ships."""
    return eager(quantised(merged))


def quantised(merged: Path) -> Any:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = torch_model(merged)
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return model


def eager(model: Any) -> Answer:
    import numpy as np
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)

    def answer(batch: list[list[int]]) -> np.ndarray:
        ids, mask = map(torch.from_numpy, padded(batch, np))
        return model(input_ids=ids, attention_mask=mask).logits.numpy()

    return answer


def build_executorch(merged: Path, work: Path, train: Path) -> None:
    """XNNPACK, weights int8 a channel, activations at run time; batch 1, any length up to MAX_LENGTH, without a mask: its quantizer makes
    the whole numbers that a mask is indexed with floats, and refuses them."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    ids = torch.ones((1, 16), dtype=torch.int64)
    shapes = {"input_ids": {1: torch.export.Dim("sequence_length", min=2, max=MAX_LENGTH)}}
    traced = torch.export.export(logits_only(merged), (ids,), dynamic_shapes=shapes).module()
    quantizer = XNNPACKQuantizer().set_module_type(torch.nn.Linear, get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    prepared = prepare_pt2e(traced, quantizer)
    prepared(ids)
    program = torch.export.export(convert_pt2e(prepared), (ids,), dynamic_shapes=shapes)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    (work / "model.pte").write_bytes(lowered.buffer)


def load_executorch(merged: Path, work: Path) -> Answer:
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(work / "model.pte").load_method("forward")

    def answer(batch: list[list[int]]) -> Any:
        return method.execute([torch.tensor(batch)])[0].numpy()

    return answer


def padded(batch: list[list[int]], np: Any) -> tuple[Any, Any]:
    longest = max(map(len, batch))
    ids, mask = np.zeros((len(batch), longest), dtype=np.int64), np.zeros((len(batch), longest), dtype=np.int64)
    for i, row in enumerate(batch):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return ids, mask


# name: (build, load). What has no `load` writes model.onnx, which run.py times.
TOOLS: dict[str, tuple[Callable[[Path, Path, Path], None], Callable[[Path, Path], Answer] | None]] = {
    "onnxruntime": (build_onnxruntime, None),
    "olive": (build_olive, None),
    "openvino": (build_openvino, load_openvino),
    "torch": (build_torch, load_torch),
    "torchao": (build_torchao, load_torchao),
    "executorch": (build_executorch, load_executorch),
}


def score(merged: Path, work: Path, load: Callable[[Path, Path], Answer], path: Path) -> dict[str, Any]:
    answer, words = load(merged, work), tokenizer(merged)
    return {"answers": [int(answer([words.encode(row["text"]).ids])[0].argmax()) for row in rows(path)]}


def measure(merged: Path, work: Path, load: Callable[[Path, Path], Answer], timing: Any, flags: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    for name, kind in (("runs", int), ("seconds", float), ("batch", int), ("sequence", str), ("threads", int), ("texts", Path)):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--benchmark", action="store_true")
    asked = parser.parse_args(flags)
    started = time.perf_counter()
    words, answer = tokenizer(merged), load(merged, work)
    load_ms = (time.perf_counter() - started) * 1000
    texts = [json.loads(line) for line in asked.texts.read_text("utf-8").splitlines()]
    real = [words.encode(text).ids for text in texts]
    answer([real[0]])
    cold_start_ms = timing.since_start_ms()
    latency = []
    for part in asked.sequence.split(","):
        fixed = [] if part == "real" else [(real[0] * int(part))[: int(part)]]
        inputs = timing.batches(fixed or real, asked.batch)
        item = {"batch": asked.batch, "sequence": timing.mean_length(inputs), "lengths": "fixed" if fixed else "real"}
        item |= timing.passes(answer, inputs, asked.runs, asked.seconds)
        if not fixed:
            said = timing.batches(texts, asked.batch)
            item["text_ms"] = timing.passes(
                lambda some: answer([words.encode(text).ids for text in some]), said, asked.runs, asked.seconds
            )["ms"]
        latency.append(item)
    return {
        **{"onnxruntime": None, "runtime": "", "provider": "CPU", "threads": 1, "load_ms": load_ms, "cold_start_ms": cold_start_ms},
        **{"peak_rss_bytes": timing.peak_rss_bytes(), "latency": latency, "decode": None},
    }


def main(name: str, verb: str, merged: Path, work: Path, *more: str) -> None:
    build, load = TOOLS[name]
    if verb == "build":
        build(merged, work, Path(more[0]))
        found: dict[str, Any] = {}
    elif verb == "score":
        assert load is not None
        found = score(merged, work, load, Path(more[0]))
    else:
        assert load is not None
        spec = importlib.util.spec_from_file_location("timing", more[0])
        assert spec is not None and spec.loader is not None
        timing = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(timing)
        found = measure(merged, work, load, timing, list(more[1:]))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), *sys.argv[5:])
