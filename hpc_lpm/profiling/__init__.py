"""Measuring what each layer and the link between ranks cost."""
