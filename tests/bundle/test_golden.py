"""The golden texts: the same every time, and full of what breaks tokenizers."""

import unicodedata

import pytest

from edgetune.bundle.golden import synthetic


@pytest.fixture(scope="module")
def tokenizer(encoder_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(encoder_model[0])


def test_they_are_the_same_for_a_seed(tokenizer):
    assert synthetic(tokenizer, 128, 3, 48) == synthetic(tokenizer, 128, 3, 48)
    assert synthetic(tokenizer, 128, 3, 48) != synthetic(tokenizer, 128, 4, 48)


@pytest.mark.parametrize("count", [100, 128, 300])
def test_they_are_many_and_differ(tokenizer, count):
    texts = synthetic(tokenizer, count, 0, 48)
    assert len(texts) == len(set(texts)) == count


def test_they_look_for_trouble(tokenizer):
    texts = synthetic(tokenizer, 128, 0, 48)
    scripts = {unicodedata.name(c, "?").split()[0] for text in texts for c in text}
    assert {"LATIN", "CJK", "HIRAGANA", "HANGUL", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "THAI"} <= scripts
    assert any(unicodedata.normalize("NFC", text) != text for text in texts)
    assert any(unicodedata.normalize("NFD", text) != text == unicodedata.normalize("NFC", text) for text in texts)
    for part in ("🙂", "\t", "\n", "\r\n", "     ", "\u00a0", "\u200b", "'", '"', "\\"):
        assert any(part in text for text in texts), repr(part)
    assert any(text.isupper() and len(text) > 3 for text in texts)
    assert sum(len(text) == 1 for text in texts) >= 5
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    assert max(lengths) > 48
    assert any(0.9 * 48 >= length > 0.5 * 48 for length in lengths[:2])


def test_a_tokenizer_that_drops_everything_does_not_hang():
    def silent(text, **_):
        return {"input_ids": []}

    assert len(synthetic(silent, 128, 0, 48)) == 128
