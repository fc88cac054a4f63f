"""Where the models looked: SAM's features and the Q-Formers' attention, as maps in the picture's own frame."""
