"""Your content flows and output classes.

product_copy.py, support_replies.py and newsletter.py are content flows: copy one to write your own. content.py runs a
single template as a job. outputs.py has the output classes that templates name. The product is in presswork/.
"""
