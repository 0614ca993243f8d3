"""Accuracy of quantized models: perplexity, sensitivity, policies."""
