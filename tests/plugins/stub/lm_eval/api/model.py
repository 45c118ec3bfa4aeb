class LM:
    pass
