"""Hooks into Hugging Face's libraries: transformers' Trainer, and accelerate."""

from theta.hf.accelerate_state import load_state, save_state
from theta.hf.trainer_callback import Callback, resume

__all__ = ["Callback", "load_state", "resume", "save_state"]
