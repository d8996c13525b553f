"""`densecl check`: a method, data set, backbone or task of one's own, tried in seconds."""
