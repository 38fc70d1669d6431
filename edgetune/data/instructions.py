"""What a model that writes is asked: chat messages, or an instruction with its input (alpaca)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MESSAGES = "messages"
ROLES = ("system", "user", "assistant", "tool")


def messages(value: Any) -> tuple[list[dict[str, str]], str]:
    """([{role, content}, ...] that ends with the assistant's answer, what is wrong or "")."""
    if not isinstance(value, list) or not value:
        return [], "no messages"
    kept: list[dict[str, str]] = []
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return [], "a message without role or content"
        if message.get("role") not in ROLES:
            return [], f"a message whose role is none of {', '.join(ROLES)}"
        if not encodable(message["content"]):
            return [], "a message that is not valid Unicode"
        kept.append({"role": message["role"], "content": message["content"]})
    if kept[-1]["role"] != "assistant" or not kept[-1]["content"].strip():
        return [], "no answer of the assistant at the end"
    if len(kept) == 1:
        return [], "no message before the assistant's answer"
    return kept, ""


def conversation(turns: Sequence[Mapping[str, str]]) -> str:
    """What is asked: every turn but the last, as text."""
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns[:-1])


def prompt(instruction: str, given: str) -> str:
    """Instruction and input, a blank line between; the instruction alone where the input is empty."""
    return f"{instruction}\n\n{given}" if given.strip() else instruction


def encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return False
    return True
