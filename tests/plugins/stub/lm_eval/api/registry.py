MODEL_REGISTRY = {}


def register_model(name):
    def register(model):
        assert name not in MODEL_REGISTRY
        MODEL_REGISTRY[name] = model
        return model

    return register
