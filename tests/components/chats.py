"""Small tokenizers in the forms of instruct models, each with a chat template of that family's kind."""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import decoders as decoding
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "system user assistant question answer model Name a colour. Yes, blue is one.\n\nWhich is the largest? The sea.\n",
    "Be kind and short. Größe café naïve 日本語 🙂 well , hello please html tag x </s> <pad> [INST] [/INST] ",
    "<|im_end|>\n",
    string.printable,
] * 4
GPT2 = "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
CL100K = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}{{ bos_token }}"
    "{% for message in turns %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)
PHI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
QWEN3 = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}{% set content = m.content %}"
    "{% if m.role == 'assistant' and '</think>' in content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)


def _byte_level(pattern: str, control: list[str], template: str, size: int = 420, **named: Any) -> Any:
    backend: Any = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoding.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=size, special_tokens=[], initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in control])
    return _fast(backend, template, **named)


def _sentence_pieces(control: list[AddedToken], template: str, *, prepend: str, **named: Any) -> Any:
    """As converted from SentencePiece: spaces are ▁, and the beginning of a text has one more, of all parts or once."""
    backend: Any = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")  # while it is trained: no piece goes over
    alphabet = sorted(set("".join(CORPUS)) | {"▁"})
    backend.train_from_iterator(
        [part for text in CORPUS for part in text.split("\n")],
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<unk>"], initial_alphabet=alphabet, show_progress=False, max_token_length=6
        ),
    )
    space = normalizers.Replace(" ", "▁")
    parts = [normalizers.Prepend("▁"), space] if prepend == "every" else [space]
    backend.normalizer = normalizers.Sequence(parts) if prepend != "first" else None
    backend.pre_tokenizer = (
        pre_tokenizers.Metaspace(prepend_scheme="first", split=False) if prepend == "first" else None
    )
    backend.decoder = decoding.Sequence([decoding.Replace("▁", " "), decoding.Fuse()])
    backend.add_special_tokens(control)
    return _fast(backend, template, unk_token="<unk>", **named)


def _fast(backend: Any, template: str, **named: Any) -> Any:
    if bos := named.get("bos_token"):
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    made: Any = PreTrainedTokenizerFast
    tokenizer = made(tokenizer_object=backend, **named)
    tokenizer.chat_template = template
    return tokenizer


def chatml(start: str = "<|im_start|>", end: str = "<|im_end|>") -> Any:
    """As SmolLM2 and Qwen 2: no token of the beginning, a system prompt of the template's own."""
    template = CHATML.replace("<|im_start|>", start).replace("<|im_end|>", end)
    return _byte_level(GPT2, ["<|endoftext|>", start, end], template, eos_token=end, pad_token=end)


def llama3() -> Any:
    """The template writes the token of the beginning, which the tokenizer puts before every text too."""
    control = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    return _byte_level(CL100K, control, LLAMA3, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")


def gemma() -> Any:
    """No system role."""
    control = [AddedToken(text, normalized=False) for text in ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")]
    return _sentence_pieces(control, GEMMA, prepend="never", bos_token="<bos>", eos_token="<eos>")


def mistral(prepend: str = "every") -> Any:
    """The turns' marks are text."""
    control = [AddedToken(text, normalized=False) for text in ("<s>", "</s>")]
    return _sentence_pieces(control, MISTRAL, prepend=prepend, bos_token="<s>", eos_token="</s>")


def phi() -> Any:
    """Control tokens take up the space behind them, and no generation_config need name what ends a turn."""
    marks = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    control = [AddedToken(text, normalized=False) for text in ("<s>", "<|endoftext|>")]
    control += [AddedToken(text, normalized=False, rstrip=True) for text in marks]
    return _sentence_pieces(control, PHI, prepend="every", bos_token="<s>", eos_token="<|endoftext|>")


def qwen3() -> Any:
    """Lets the model think, between tokens that are not special."""
    made = _byte_level(CL100K, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], QWEN3, eos_token="<|im_end|>")
    made.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>")])
    return made


def unigram() -> Any:
    """Its pieces hold the control tokens, with the best score there is: as text they must not be found."""
    control = ["<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    pieces = [(text, 0.0) for text in control]
    letters = sorted(set("".join(CORPUS).replace(" ", "▁")))
    pieces += [(text, -5.0 - number / 100) for number, text in enumerate(["▁the", "is", "colour", *letters])]
    backend: Any = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    backend.decoder = decoding.Metaspace(prepend_scheme="never")
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in control])
    return _fast(backend, CHATML, unk_token="<unk>", eos_token="<|im_end|>")


MADE: dict[str, Callable[[], Any]] = {
    "chatml": chatml,
    "llama3": llama3,
    "gemma": gemma,
    "mistral": mistral,
    "mistral, space once": lambda: mistral("first"),
    "phi": phi,
    "unigram": unigram,
}


@cache
def tokenizer_of(family: str) -> Any:
    """One for all tests, which leave it as it is."""
    return (MADE | {"qwen3": qwen3})[family]()
