"""Training data of the embedded prior: objects, their pictures, their captions, the tokenizer."""
