"""Questions on a text whose answers are pieces of it.

The files of SQuAD ({"data": [{"title", "paragraphs": [{"context", "qas": [{"question", "id", "answers"}]}]}]}) are read as one row a question,
the number of the row being the place of the question in the file. Rajpurkar et al., arXiv:1606.05250 and 1806.03822 (no answer).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(articles: list[Any]) -> list[dict[str, Any]] | None:
    """Rows with question, context, answers, id and title; None when this is not the layout of SQuAD.

    A question without a usable paragraph stays, without a context, so that it is reported and not lost.
    """
    if not articles or not all(isinstance(article, Mapping) and isinstance(article.get("paragraphs"), list) for article in articles):
        return None
    rows: list[dict[str, Any]] = []
    for article in articles:
        for paragraph in article["paragraphs"]:
            if not isinstance(paragraph, Mapping) or not isinstance(paragraph.get("qas"), list):
                return None
            for asked in paragraph["qas"]:
                asked = asked if isinstance(asked, Mapping) else {}
                answers = asked.get("answers", [] if asked.get("is_impossible") else None)
                rows.append(
                    {
                        "id": asked.get("id"),
                        "title": article.get("title"),
                        "question": asked.get("question"),
                        "context": paragraph.get("context"),
                        "answers": answers,
                    }
                )
    return rows


def read(value: Any) -> tuple[list[tuple[int | None, str]], str]:
    """{"text": [...], "answer_start": [...]}, [{text, answer_start}], or one answer as a text -> ([(start, text)], what is wrong or "").

    The start is None where none is given; an empty list or text means that there is no answer.
    """
    if isinstance(value, str):
        return ([(None, value)] if value.strip() else []), ""
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start")
        texts = [texts] if isinstance(texts, str) else texts
        starts = [starts] if isinstance(starts, int) else starts
        if not isinstance(texts, (list, tuple)):
            return [], "answers without a text"
        starts = [None] * len(texts) if starts is None else starts
        if not isinstance(starts, (list, tuple)) or len(starts) != len(texts):
            return [], "answers with more or fewer starts than texts"
        pairs = list(zip(starts, texts, strict=True))
    elif isinstance(value, (list, tuple)):
        pairs = []
        for item in value:
            if isinstance(item, Mapping):
                pairs.append((item.get("answer_start"), item.get("text")))
            elif isinstance(item, str):
                pairs.append((None, item))
            elif isinstance(item, (list, tuple)) and len(item) == 2:
                pairs.append((item[0], item[1]))
            else:
                return [], "an answer without a text"
    else:
        return [], "no answers" if value is None else "answers that are no list"
    for start, text in pairs:
        if not isinstance(text, str) or not text.strip():
            return [], "an answer without a text"
        if start is not None and (isinstance(start, bool) or not isinstance(start, int)):
            return [], "an answer whose start is no whole number"
    return pairs, ""


def located(context: str, answers: list[tuple[int | None, str]]) -> tuple[list[list[Any]], int, str, str]:
    """([[start, text], ...] with each text at its start in `context`, how many were mended, what is wrong or "", where).

    An answer that is elsewhere is mended when its text occurs exactly once.
    """
    found: list[list[Any]] = []
    mended = 0
    for start, text in answers:
        if start is not None and start >= 0 and context.startswith(text, start):
            found.append([start, text])
            continue
        first = context.find(text)
        if first < 0:
            return [], 0, "an answer that is not in its context", ""
        if context.find(text, first + 1) >= 0:
            at = "no start" if start is None else f"start {start}"
            return [], 0, "an answer that is not at its start", f"{at}, and its text occurs more than once in the context"
        mended += 1
        found.append([first, text])
    return found, mended, "", ""
