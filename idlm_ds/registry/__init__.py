"""The names users type, and what stands behind each: one row a name.

Choices of options, types of recipe keys, checks, messages and tables of the documentation derive
from these rows, so that adding a member means adding one row; ``docs/extending.md`` says how.
Nothing here imports torch: a row names its class, and ``load`` imports it.
"""
