"""What a union shows: its objects, and which layers a name is made of."""
