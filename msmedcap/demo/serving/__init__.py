"""What a server of strangers needs: turns at the models, sign-in, limits, health, logs, backups, and borrowed GPUs."""
