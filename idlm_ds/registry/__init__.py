"""The names users type, and what each of them stands for: one row a name.

Choices of options, types of recipe keys, checks and messages derive from these tables, so a new
member is one new row; ``docs/extending.md`` says how. Nothing here imports torch: a row names its
class as an entry point, and ``load`` imports it.
"""
