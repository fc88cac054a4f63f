"""One file per box of the papers' figures: encoders, Q-Former, branch, language model, captioner."""
