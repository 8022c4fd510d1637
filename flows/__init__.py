"""Presswork's flows: records become validated content, in five verbs that always go one way.

    select -> render -> complete -> validate -> record

Reading order: product_copy.py, support_replies.py and newsletter.py (content flows: copy one to write your own),
content.py (a template alone as a job), outputs.py (what an answer must be), engine/ (what carries a run),
steps/ (render, complete, validate), and db/ beside this package (select, record, history). sandbox/ is a local
Messages API; cli.py and commands/ are what people type.
"""
