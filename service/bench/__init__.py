"""`reppose-serve bench`: what the service costs beside the bare loop decode + warp + net.

`command` starts a server, the client of `load` and the loop of `loop`, each in a process of its own, and lets them
take turns; `report` writes what came out; `peers` puts other servers in the place of ours.
"""
