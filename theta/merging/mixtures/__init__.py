"""Models with a mixture of experts, made of models that have one MLP in each layer."""
