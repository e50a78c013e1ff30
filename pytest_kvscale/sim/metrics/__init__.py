"""The metrics of the embedded cluster's components, from the events and requests clients see.

Each module keeps one kind of account where the thing happens, and tells it as metric families when
somebody asks; `naming` knows how versions call them, `exposition` writes them down.
"""
