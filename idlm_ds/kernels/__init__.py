"""Operators on blocks of vocabulary scores, and where they are computed.

An operator is a folder with a plain ``reference.py`` and, where a fused kernel pays, the same
operator in Triton. Nothing here knows a network, a process or a process group.
"""
