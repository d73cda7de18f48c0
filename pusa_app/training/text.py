"""mini's tokenizer and text encoder: whole words and a T5 encoder of two layers."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from pusa_app.training.captions import MAX_TOKENS, vocabulary

TEXT_WIDTH = 128
VOCABULARY_SIZE = 128


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of the caption grammar, lower case, `</s>` at the end; other words are `<unk>`."""
    words = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *vocabulary()])}
    if len(words) > VOCABULARY_SIZE:
        raise ValueError(f"{len(words)} words do not fit a vocabulary of {VOCABULARY_SIZE}")
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )


def make_text_encoder() -> T5EncoderModel:
    """A T5 encoder of 0.4 M parameters, output (B, L, TEXT_WIDTH)."""
    return T5EncoderModel(
        T5Config(
            vocab_size=VOCABULARY_SIZE,
            d_model=TEXT_WIDTH,
            d_kv=32,
            d_ff=2 * TEXT_WIDTH,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )
