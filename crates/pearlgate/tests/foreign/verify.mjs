// `node verify.mjs JWKS_URL ISSUER AUDIENCE TOKEN`: an access token in the eyes of jose, which knows nothing of us.
// Prints the claims, or the error's code on standard error.
import { createRemoteJWKSet, jwtVerify } from 'jose';

const [jwks, issuer, audience, token] = process.argv.slice(2);
try {
  const { payload } = await jwtVerify(token, createRemoteJWKSet(new URL(jwks)), {
    issuer,
    audience,
    typ: 'at+jwt',
    algorithms: ['ES256', 'EdDSA', 'RS256'],
    requiredClaims: ['exp', 'iat', 'sub'],
  });
  console.log(JSON.stringify(payload));
} catch (error) {
  console.error(error.code ?? error);
  process.exitCode = 1;
}
