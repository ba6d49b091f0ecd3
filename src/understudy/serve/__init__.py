"""What a served model is made of: the API, the playground, and the store of what people said and thought of it."""
