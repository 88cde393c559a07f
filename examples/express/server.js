// An Express app with a route for people who are signed in at Pearlgate.
import { setTimeout as pause } from 'node:timers/promises';
import express from 'express';
import { createRemoteJWKSet, jwtVerify } from 'jose';

const { PEARLGATE_URL = 'http://localhost:8080', AUDIENCE = PEARLGATE_URL, REVOCATIONS_URL, PORT = 0 } = process.env;
const LIFETIME = 600_000; // of an access token (`tokens.access`), in milliseconds
const RULES = { issuer: PEARLGATE_URL, audience: AUDIENCE, typ: 'at+jwt', algorithms: ['ES256', 'EdDSA', 'RS256'],
  requiredClaims: ['exp', 'sub', 'sid'] };
// Fetched when first needed, again for a key that is not there, and when older than the server's Cache-Control says.
const keys = createRemoteJWKSet(new URL(`${PEARLGATE_URL}/.well-known/jwks.json`), { cacheMaxAge: 300_000 });
const ended = new Set();

async function signedIn(request, response, next) {
  const token = /^Bearer +(\S+)$/i.exec(request.get('authorization') ?? '')?.[1] ?? '';
  try {
    const { sub, sid, roles } = (await jwtVerify(token, keys, RULES)).payload;
    if (!ended.has(sid)) request.caller = { person: sub, session: sid, roles };
  } catch (error) {
    // Every other error says that the keys cannot be had, and nothing about the person: signing in would not help.
    const refused = /^ERR_(JW[ST]|JWKS_(NO|MULTIPLE)|JOSE_(ALG|NOT))_/.test(error.code);
    if (!refused) return response.status(503).set('Retry-After', '5').end();
  }
  if (request.caller) return next();
  response.status(401).set('WWW-Authenticate', token ? 'Bearer error="invalid_token"' : 'Bearer').end();
}

// A sign-out reaches us in a moment, not when the token expires. While the feed is away, tokens are good until then.
async function follow(feed) {
  let since = ''; // the first time, the feed begins with whatever may still have a token that is good
  for (;; await pause(500)) {
    try {
      feed.searchParams.set('since', since);
      const answer = await fetch(feed, { headers: { accept: 'text/event-stream' } });
      if (!answer.ok) throw new Error(`the feed answered ${answer.status}`);
      let text = '';
      for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
        const events = (text + piece).split('\n\n');
        text = events.pop();
        for (const event of events.filter((event) => /^event: ?session_ended$/m.test(event))) {
          const { session_id, ended_at } = JSON.parse(/^data: ?(.*)$/m.exec(event)[1]);
          ended.add(session_id);
          setTimeout(() => ended.delete(session_id), LIFETIME);
          since = ended_at;
        }
      }
    } catch (error) {
      console.error(`revocations: ${error.message}`);
    }
  }
}

if (REVOCATIONS_URL) follow(new URL(REVOCATIONS_URL));
const app = express();
app.get('/courses', signedIn, (request, response) => response.json(request.caller));
const listening = app.listen(Number(PORT), '127.0.0.1', (error) => {
  if (error) throw error;
  console.log(`listening on http://127.0.0.1:${listening.address().port}`);
});
