"""Training: the demo scale's frozen parts, alignment (stage 1), captioning (stage 2), the loop, and the whole recipe."""
