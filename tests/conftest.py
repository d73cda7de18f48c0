"""Shared fixtures: a tiny Mochi pipeline folder with random weights, and the parity data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pusa_app.models import BackboneSpec
from pusa_app.timeline import ScheduleSpec

# A busy machine is slow, not wrong; and a test must fail today if it fails tomorrow.
settings.register_profile("pusa", deadline=None, derandomize=True, database=None)
settings.load_profile("pusa")

PARITY_DATA = Path(__file__).parent / "parity" / "data"

TINY_SPEC = BackboneSpec(
    family="mochi",
    fps=12,
    width=32,
    height=32,
    num_frames=19,
    max_frames=61,
    steps=3,
    guidance=3.0,
    schedule=ScheduleSpec(kind="linear-quadratic"),
    max_text_tokens=16,
)
WORDS = ("a", "red", "blue", "ball", "square", "moves", "left", "right", "up", "down")


@pytest.fixture(autouse=True, scope="session")
def _own_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nobody's own models, videos and tokens are looked at, let alone changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUSA_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session")
def tiny_spec() -> BackboneSpec:
    return TINY_SPEC


@pytest.fixture(scope="session")
def tiny_mochi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that diffusers' MochiPipeline loads too; do not write into it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_mochi(folder)
    return folder


@pytest.fixture(scope="session")
def pusa_pickle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The LoRA of Pusa V1 as its authors publish theirs: a pickle. The repository holds no pickles."""
    import torch
    from safetensors.torch import load_file

    path = tmp_path_factory.mktemp("pickles") / "pusa_lora.pt"
    torch.save(load_file(PARITY_DATA / "wan" / "pusa_lora.safetensors"), path)
    return path


def build_tiny_mochi(folder: Path) -> None:
    import torch
    from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    vocabulary = {word: i for i, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    )
    torch.manual_seed(0)
    text_encoder = T5EncoderModel(
        T5Config(vocab_size=len(vocabulary), d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    )
    transformer = MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        pooled_projection_dim=32,
        text_embed_dim=32,
        max_sequence_length=16,
    )
    torch.nn.init.normal_(transformer.pos_frequencies, std=0.02)
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    pipeline = MochiPipeline(scheduler, vae, text_encoder, tokenizer, transformer, force_zeros_for_empty_prompt=True)
    pipeline.save_pretrained(folder)
