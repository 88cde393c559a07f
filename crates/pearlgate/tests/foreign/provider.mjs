// `node provider.mjs REDIRECT_URI`: an OpenID provider that is not ours, with one client (`pearl`, secret `shh`) and a
// page to sign in at. Whoever says to be somebody is. Vera has an address, and it can be changed:
// `POST CONTROL/control` with `{"email": "…"}`; with `{"down": true}` tokens, keys and userinfo answer 503, and with
// `{"down": false}` they are back. Prints where both listen, and serves until it is ended.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

import Provider, { interactionPolicy } from 'oidc-provider';

const [redirectUri] = process.argv.slice(2);
if (!redirectUri) {
  console.error('usage: node provider.mjs REDIRECT_URI');
  process.exit(1);
}

const people = new Map([['vera', { name: 'Vera', email: 'vera@example.com', email_verified: true }]]);
const DOES_NOT_ANSWER = new Set(['/token', '/jwks', '/me']);
let down = false;

const listen = (server) =>
  new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${server.address().port}`));
  });

async function bodyOf(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts).toString('utf8');
}

/** Everybody says who they are each time, also in a browser that was here before. */
function policy() {
  const { Check, base } = interactionPolicy;
  const prompts = base();
  prompts.get('login').checks.add(
    new Check('each_time', 'everybody says who they are', (ctx) =>
      ctx.oidc.result?.login ? Check.NO_NEED_TO_PROMPT : Check.REQUEST_PROMPT,
    ),
  );
  return prompts;
}

function providerAt(issuer) {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: 'pearl',
        client_secret: 'shh',
        token_endpoint_auth_method: 'client_secret_basic',
        redirect_uris: [redirectUri],
      },
    ],
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig' }] },
    pkce: { methods: ['S256'], required: () => true },
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
    // Into the ID token as well, as the large providers do.
    conformIdTokenClaims: false,
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...people.get(id) }) }),
    features: { devInteractions: { enabled: false } },
    interactions: { policy: policy(), url: (_, { uid }) => `/interaction/${uid}` },
    cookies: { keys: [randomUUID()] },
    ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 600, IdToken: 600, Interaction: 600, Session: 600 },
  });
  provider.on('server_error', (_, error) => console.error(error));
  return provider;
}

const page = (title, form) =>
  `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${form}</html>`;
const LOGIN = page(
  'Sign in',
  '<form id="login" method="post"><label>Name <input name="login" required></label> <button>Sign in</button></form>',
);
const CONSENT = page(
  'Tell the application who you are?',
  '<form id="consent" method="post"><button>Yes</button></form>',
);

/** What somebody may be asked on the way: who they are, and whether the application may know. */
async function interact(provider, request, response) {
  const { prompt, session, params, grantId } = await provider.interactionDetails(request, response);
  if (request.method !== 'POST') {
    response.writeHead(200, { 'Content-Type': 'text/html', 'Cache-Control': 'no-store' });
    response.end(prompt.name === 'login' ? LOGIN : CONSENT);
  } else if (prompt.name === 'login') {
    const accountId = new URLSearchParams(await bodyOf(request)).get('login');
    await provider.interactionFinished(request, response, { login: { accountId } });
  } else {
    const { accountId } = session;
    const grant = grantId
      ? await provider.Grant.find(grantId)
      : new provider.Grant({ accountId, clientId: params.client_id });
    grant.addOIDCScope(prompt.details.missingOIDCScope?.join(' ') ?? 'openid');
    const consent = { grantId: await grant.save() };
    await provider.interactionFinished(request, response, { consent }, { mergeWithLastSubmission: true });
  }
}

const server = createServer();
const issuer = await listen(server);
const provider = providerAt(issuer);
const provide = provider.callback();
server.on('request', (request, response) => {
  const { pathname } = new URL(request.url, issuer);
  if (down && DOES_NOT_ANSWER.has(pathname)) {
    response.writeHead(503).end();
  } else if (pathname.startsWith('/interaction/')) {
    interact(provider, request, response).catch((error) => {
      response.writeHead(400, { 'Content-Type': 'text/plain' }).end(String(error.message));
    });
  } else {
    provide(request, response);
  }
});

const control = createServer((request, response) => {
  const obey = async () => {
    if (request.method !== 'POST' || request.url !== '/control') return 404;
    const wanted = JSON.parse(await bodyOf(request));
    if (typeof wanted.email === 'string') people.get('vera').email = wanted.email;
    if (typeof wanted.down === 'boolean') down = wanted.down;
    return 204;
  };
  obey().then(
    (status) => response.writeHead(status).end(),
    () => response.writeHead(400).end(),
  );
});

console.log(`control on ${await listen(control)}`);
console.log(`listening on ${issuer}`);
