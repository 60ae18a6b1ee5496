"""The folder of a campaign as an RO-Crate: who ran what on what, readable by machines."""
