"""Hooks into Hugging Face's libraries: transformers' Trainer."""

from theta.hf.trainer_callback import Callback, resume

__all__ = ["Callback", "resume"]
