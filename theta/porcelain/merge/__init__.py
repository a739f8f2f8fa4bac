"""Checkpoints of several commits become one."""
