"""The Prefect server that a command starts if there is no other, and that stays for the next command.

- server_record: which server this state folder has, and whether a command can use it.
- held_server: find that server or start it, hold it, and let it go.
- server_context: these steps as one command takes them.
- retiring_server: end it for `presswork down` and `presswork up`, and describe it for `presswork status`.
"""
