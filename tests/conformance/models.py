"""Tiny random models whose tokenizers are trained on the very texts: a BERT and a Llama, as Hugging Face directories."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TOKENS = 128  # of the longest row
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": TOKENS}


def encoder(folder: Path, texts: Iterable[str]) -> Path:
    """A BERT without a head; its tokenizer takes pairs."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=1200, special_tokens=list(SPECIAL), show_progress=False))
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=TOKENS, model_input_names=inputs, **names).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=words.get_vocab_size(), initializer_range=0.1, **SIZES)).save_pretrained(folder)
    return folder


def masked(folder: Path, texts: Iterable[str]) -> Path:
    """The same with the head that it would have been trained with."""
    from transformers import AutoConfig, BertForMaskedLM

    encoder(folder, texts)
    torch.manual_seed(0)
    BertForMaskedLM(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


def decoder(folder: Path, texts: Iterable[str]) -> Path:
    """A Llama with grouped heads and a byte-level BPE tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<pad>", "<end>"], initial_alphabet=alphabet, show_progress=False)
    words.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<pad>", model_max_length=TOKENS).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=words.get_vocab_size(), num_key_value_heads=2, initializer_range=0.1, **SIZES)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = None, 1, 0
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def seq2seq(folder: Path, texts: Iterable[str]) -> Path:
    """A T5 with a Unigram tokenizer that ends every text."""
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = Tokenizer(models.Unigram())
    words.normalizer, words.decoder = normalizers.NFKC(), decoders.Metaspace()
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    words.train_from_iterator(
        texts, trainers.UnigramTrainer(vocab_size=1200, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=TOKENS, **names).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
    config = T5Config(vocab_size=words.get_vocab_size(), decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, **sizes)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder
