"""The picture area: what is sent to it, how pixels are packed, and the small pictures of maps beside it."""
