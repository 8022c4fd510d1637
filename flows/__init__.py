"""What you write: content flows, and what an answer must be.

product_copy.py, support_replies.py and newsletter.py are content flows: copy one to write your own. content.py runs a
template alone as a job. outputs.py has the output classes that templates name. The product is in presswork/.
"""
