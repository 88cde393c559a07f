"""`python verify.py JWKS_URL ISSUER AUDIENCE TOKEN`: an access token in the eyes of PyJWT, which knows nothing of us.

Prints the claims, or the error's name on standard error.
"""

import json
import sys

import jwt


def verify(jwks, issuer, audience, token):
    key = jwt.PyJWKClient(jwks).get_signing_key_from_jwt(token)
    decoded = jwt.decode_complete(
        token,
        key,
        algorithms=["ES256", "EdDSA", "RS256"],
        issuer=issuer,
        audience=audience,
        options={"require": ["exp", "iat", "iss", "aud", "sub"]},
    )
    # PyJWT leaves this to its caller: without it, another kind of token with the same key would pass (RFC 8725 §3.11).
    if decoded["header"].get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("not an access token")
    return decoded["payload"]


try:
    print(json.dumps(verify(*sys.argv[1:])))
except jwt.PyJWTError as error:
    sys.exit(type(error).__name__)
