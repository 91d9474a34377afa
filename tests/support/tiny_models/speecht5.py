"""SpeechT5: text to a spectrogram in a given voice; its vocoder is in the subfolder `vocoder`."""

import io
from pathlib import Path

import sentencepiece
import torch
from transformers import SpeechT5Config, SpeechT5ForTextToSpeech, SpeechT5Tokenizer

from tests.support.tiny_models import parts, weights

SENTENCES = ("slow sad piano in a minor", "fast arpeggio bright", "the quick brown fox jumps over")
VOICE = 16  # numbers that describe a speaker


def build(folder: Path) -> None:
    """Write the model and its vocoder to `folder`."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=written,
        vocab_size=32,
        hard_vocab_limit=False,
        model_type="char",
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    (folder / "spm_char.model").write_bytes(written.getvalue())
    tokenizer = SpeechT5Tokenizer(str(folder / "spm_char.model"))
    tokenizer.save_pretrained(folder)
    config = SpeechT5Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_ffn_dim=64,
        decoder_attention_heads=2,
        speech_decoder_prenet_units=64,
        speech_decoder_postnet_units=16,
        speech_decoder_postnet_layers=2,
        speaker_embedding_dim=VOICE,
        encoder_max_relative_position=20,
    )
    model = SpeechT5ForTextToSpeech(config).eval()
    weights.fill(model, 0)
    model.speech_decoder_postnet.prob_out.bias.data.fill_(-2.0)  # not to stop at once
    model.save_pretrained(folder)
    parts.vocoder(folder)
