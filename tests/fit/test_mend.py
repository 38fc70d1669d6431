"""A refused candidate holds once the layer that ruined it is back in float, and says what every layer costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from onnx import numpy_helper

from edgetune import target, tasks
from edgetune.fit import candidates, first
from edgetune.fit.candidates import Asked
from edgetune.graph import session


@pytest.fixture(scope="module")
def ruined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A classifier whose last values are a thousand times as large in one column (their bias is zero), and read with a
    thousandth: the same answers, but one scale
    for the whole matrix leaves nothing of its other columns. Also the name of that layer."""
    folder = tmp_path_factory.mktemp("classifier")
    path = tiny.graph(tiny.classifier(folder), folder / "model.onnx")
    model = onnx.load(path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def scale(name: str, index: object, factor: float) -> None:
        values = numpy_helper.to_array(tensors[name]).copy()
        values[index] *= factor
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))

    value, output = (
        next(n for n in model.graph.node if n.op_type == "MatMul" and part in n.name)
        for part in ("layer.1/attention/self/value", "layer.1/attention/output")
    )
    scale(value.input[1], (slice(None), 0), 1000.0)
    scale(output.input[1], (0, slice(None)), 0.001)
    onnx.save(model, path)
    return path, value.name


def test_the_layer_that_ruins_it_goes_back_to_float(ruined: tuple[Path, str], tmp_path: Path) -> None:
    graph, culprit = ruined
    run, chance = session.forward(graph), np.random.default_rng(0)
    rows = []
    while len(rows) < 60:
        ids = chance.integers(5, 100, (1, 10))
        logits = run({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"][0]
        best, second = np.sort(logits)[::-1][:2]
        if best - second > 0.3:
            rows.append({"input_ids": ids[0].tolist(), "label": int(logits.argmax())})
    examples = {"validation": rows[:40], "test": rows[40:]}
    asked = Asked(tasks.get("text-classification"), examples, tiny.LABELS, 0, target.load("x86_64-vnni"), 0.05, False, None)
    tried = first.choose(graph, ("int8-dynamic", "fp32"), asked, tmp_path)
    found = next(c for c in tried if c.scheme.name == "int8-dynamic")
    assert found.chosen, found.reason
    noted = found.facts["sensitivity"]
    assert culprit in noted["given_back"]
    assert culprit in noted["layers"][0]["layers"], "the most expensive"
    assert noted["curve"][-1]["quality"] >= 0.95
    assert candidates.as_facts(asked.task, found, tiny.LABELS)["sensitivity"] == noted
