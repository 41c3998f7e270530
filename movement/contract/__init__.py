"""The tools for a contract: a first draft from a sample, a trial on a sample, and what a change means."""
