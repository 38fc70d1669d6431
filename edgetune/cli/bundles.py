"""`edgetune benchmark`, `predict` and `verify`: what can be done with a bundle."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from edgetune.cli.options import complete

BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="folder of a bundle", show_default=False)]
REAL = "real"  # lengths of real texts
TAB = "\t"
On = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="RUNNER",
        help="where: local, ssh://user@host[:port]; verify also emulator and node",
        autocompletion=complete("local", "ssh://", "emulator", "node"),
    ),
]
Python = Annotated[
    str | None, typer.Option(metavar="PATH", help="Python interpreter there, for --on ssh:// (none: python3)", show_default=False)
]
PROVIDERS = (
    *("CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider", "QNNExecutionProvider", "CoreMLExecutionProvider"),
    *("DmlExecutionProvider", "OpenVINOExecutionProvider", "WebGpuExecutionProvider", "XnnpackExecutionProvider", "NnapiExecutionProvider"),
)
Threads = Annotated[int | None, typer.Option(min=1, help="threads of onnxruntime (none: the bundle's own)", show_default=False)]
Provider = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="provider of onnxruntime (none: the bundle's own)", autocompletion=complete(*PROVIDERS), show_default=False
    ),
]


def benchmark(
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE...", help="folders of bundles; they are measured in turns", show_default=False)
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="also another bundle, an .onnx file, or a Hugging Face directory (in PyTorch); repeat", show_default=False
        ),
    ] = None,
    provider: Provider = None,
    batch: Annotated[str, typer.Option(metavar="LIST", help="texts a pass, such as 1,8")] = "1",
    sequence: Annotated[str, typer.Option(metavar="LIST", help="tokens a text; real: lengths of real texts")] = "real,16,128",
    threads: Annotated[
        str | None, typer.Option(metavar="LIST", help="threads of onnxruntime, such as 1,2 (none: the bundle's own)", show_default=False)
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="turns that each bundle gets")] = 5,
    rows: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="rows (.jsonl) to score on and to take real lengths from, such as RUN/data/test.jsonl; none: those of the export",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="score on the first N rows only", show_default=False)] = None,
    generated: Annotated[int, typer.Option(min=0, metavar="N", help="rows that models which write are made to answer (0: none)")] = 100,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write a report", show_default=False)] = None,
    on: On = "local",
    python: Python = None,
    kit: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="measure nothing now: write a folder to run on a phone or any device", show_default=False),
    ] = None,
    result: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="the result.json that a kit wrote on its device", show_default=False)
    ] = None,
) -> None:
    """Each bundle runs in a process of its own, and they take turns, so that a busy moment hits all of them.

    --batch, --sequence and --threads span a grid; ratios are to the first bundle.
    """
    from edgetune.cli import report
    from edgetune.cli.output import out
    from edgetune.errors import RequestError
    from edgetune.runtime.measure import Shape, commands
    from edgetune.stages.benchmark import benchmark as measure

    for bundle in bundles:
        _is_bundle(bundle)
    counts = _numbers("--threads", threads) if threads else None
    lengths = [None if part == REAL else _number("--sequence", part) for part in _parts(sequence)]
    shapes = [Shape(texts, tokens) for texts in _numbers("--batch", batch) for tokens in lengths]
    if kit is not None:
        given = {"--on": on != "local", "--import": result, "--rows": rows, "--html": html, "--against": against}
        _write_kit(kit, bundles, rounds, commands(shapes, threads=_one(counts), provider=provider), provider, given)
        return
    if result is not None and (on != "local" or threads or provider):
        raise RequestError("--import reads what was measured elsewhere, and takes no --on, --threads or --provider")
    measured = measure(
        bundles,
        against=against or (),
        rounds=rounds,
        threads=counts,
        provider=provider,
        shapes=shapes,
        rows=rows,
        limit=limit,
        generated=generated,
        on=on,
        python=python,
        result=result,
    )
    if html is not None:
        from edgetune.report.page import benchmark_html
        from edgetune.workspace import write_text

        write_text(html, benchmark_html(measured))
    out.result(measured, *report.benchmarked(measured), *([f"report: {html}"] if html else []), quiet=_medians(measured))


def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="folder of a bundle; --explain takes a run too", show_default=False)],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="texts; the lines of stdin when there are none", show_default=False)
    ] = None,
    provider: Provider = None,
    threads: Threads = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=0, metavar="N", help="longest answer of a generator (0: the bundle's own)", show_default=False)
    ] = 0,
    temperature: Annotated[
        float, typer.Option(min=0, metavar="X", help="0 takes the likeliest token each time; above, tokens are drawn")
    ] = 0.0,
    top_p: Annotated[float, typer.Option(min=0, max=1, metavar="X", help="draw from the smallest set with this probability")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="seed of the draw")] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="end the answer before this text; repeatable", show_default=False)
    ] = None,
    beams: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="hypotheses that an encoder with a decoder searches (0: the bundle's own)", show_default=False
        ),
    ] = 0,
    explain: Annotated[bool, typer.Option("--explain", metavar="", help="what each word adds to the answer", show_default=False)] = False,
    label: Annotated[
        str | None, typer.Option(metavar="NAME", help="--explain: why this label, and not the likeliest", show_default=False)
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="--explain: write a page", show_default=False)] = None,
) -> None:
    """What a model writes is only printed: a generated command is never run.

    --explain leaves out each word of the text in turn (a bundle), or integrates gradients (a run, in PyTorch).
    """
    from edgetune.cli.output import out
    from edgetune.errors import RequestError
    from edgetune.runtime import load
    from edgetune.runtime.worker import understood

    if explain:
        from edgetune.cli.explain import explain as shown

        if not (bundle / "recipe.toml").is_file():
            _is_bundle(bundle)
        shown(bundle, texts or _lines(), label, html, provider, threads)
        return
    if label is not None or html is not None:
        raise RequestError("--label and --html are of an explanation", mend="give --explain too")
    _is_bundle(bundle)
    loaded = load(bundle, threads=threads, provider=provider)
    answers: list[dict[str, Any]] = []
    for text in texts or _lines():
        given = understood(text, loaded.facts["asks"], loaded.generation is not None)
        if loaded.generation is None:
            (answer,) = loaded.predict([given])
            line = loaded.line(answer)
            out.stream(f"{line.split(TAB)[0]}\n" if out.quiet else f"{line}\t{text}\n")
        else:
            how: dict[str, Any] = {"on_text": out.stream, "stop": stop or (), "num_beams": beams}
            answer = loaded.generate(given, max_new_tokens, temperature, top_p, seed, **how)
            out.stream("\n")
            if not answer["finished"]:
                out.note("cut off: the answer reached --max-new-tokens, or the model's length")
        if answer.get("cut"):
            out.warn(f"the text is longer than the {loaded.max_length} tokens that the model reads, and was cut")
        if out.json:
            answers.append({"input": text, **answer})
    if out.json:
        out.result(answers)


def verify(
    bundle: BundleFolder,
    on: On = "local",
    python: Python = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="golden rows of --on emulator, which is slow (none: 32)", show_default=False)
    ] = None,
    provider: Provider = None,
) -> None:
    """Digests, opset and golden vectors, in a fresh process with nothing but onnxruntime, numpy and tokenizers."""
    from edgetune.cli import report
    from edgetune.cli.output import facts, out
    from edgetune.runtime.verify import verify as check

    _is_bundle(bundle)
    found = check(bundle, on, provider, python=python, limit=limit)
    out.result(found, facts(report.scalars(found), f"{bundle}: verified on {found['on']}"), quiet=[str(bundle)])
    out.hint(f"edgetune benchmark {bundle}")


def _write_kit(
    folder: Path, bundles: list[Path], rounds: int, commands: list[list[str]], provider: str | None, given: dict[str, Any]
) -> None:
    from edgetune.cli.output import out
    from edgetune.errors import RequestError
    from edgetune.runtime import kit

    if foreign := [name for name, value in given.items() if value]:
        raise RequestError(f"--kit only writes a folder, and takes no {foreign[0]}", mend="give it when the result is back: --import FILE")
    kit.write(folder, bundles, kit.plan(rounds, commands, provider))
    out.result({"kit": str(folder)}, f"{folder}: copy it to the device and follow its README.md", quiet=[str(folder)])
    out.hint(f"edgetune benchmark {' '.join(map(str, bundles))} --import result.json", why="when the result is back")


def _parts(text: str) -> list[str]:
    """The items of a list, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def _numbers(flag: str, text: str) -> list[int]:
    return [_number(flag, part) for part in _parts(text)]


def _number(flag: str, part: str) -> int:
    from edgetune.errors import RequestError

    if not part.isdecimal() or int(part) < 1:
        expected = "numbers from 1 on, or real" if flag == "--sequence" else "numbers from 1 on"
        raise RequestError(f'{flag} takes {expected}, separated by commas; "{part}" is not', mend=f"{flag} 1,8")
    return int(part)


def _one(counts: list[int] | None) -> int | None:
    from edgetune.errors import RequestError

    if counts and len(counts) > 1:
        raise RequestError("a kit measures with one number of threads", mend="--threads 1")
    return counts[0] if counts else None


def _is_bundle(folder: Path) -> None:
    from edgetune.errors import RunError

    if not (folder / "edgetune.json").is_file():
        inside = sorted(folder.glob("bundles/*/edgetune.json"))
        mend = f"did you mean {inside[0].parent}?" if inside else "edgetune export RUN --target NAME makes one"
        raise RunError(f"{folder} is not a bundle (no edgetune.json in it)", mend=mend)


def _lines() -> Iterator[str]:
    """The lines of stdin, without those that are empty."""
    return (line.rstrip("\n") for line in sys.stdin if line.strip())


def _medians(measured: dict[str, Any]) -> list[str]:
    return [f"{bundle['path']}\t{latency['p50_ms']}" for bundle in measured["bundles"] for latency in bundle["latency"]]
