"""SEG-SAM on the page: a prompt, its masks, their legend and files."""
