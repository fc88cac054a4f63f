"""A caption's words: which one is chosen, where the model looked for it, what is known of it."""
