"""The index of words in answers: built when a run closes, and searched by the audit room."""
