"""Runs: experiments trained, opened, replayed, forked, compared and swept."""
