"""Many videos at once for minutes, then half of the clients vanish: whether what the streams promise holds.

Everything runs in processes of its own over real sockets. Nothing here is imported by the service.
"""
