"""As much of lm-eval as tools/lm_eval.py and the model class use."""
