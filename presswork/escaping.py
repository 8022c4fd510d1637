"""Make text from records, answers and errors harmless where it is shown: on a page, in a terminal, in a spreadsheet.

Page and terminal share one filter, so that a person sees the same marks in both.
"""
