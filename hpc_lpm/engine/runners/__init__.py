"""The runners, each of which trains one rank's part of a run under one kind of strategy."""
