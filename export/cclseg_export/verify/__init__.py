"""The verb ``cclseg verify``: one input through every library, layer by layer."""
