"""The jwt_authn filter: who a request's end user is, by the JSON Web Token that it carries.

A request meets the modules in this order: ``filter`` finds what is required, ``requirements`` decides it, ``extraction``
finds the tokens, ``provider`` judges one, with ``token`` reading it and ``keys`` verifying it; ``key_source`` has the keys.
"""
