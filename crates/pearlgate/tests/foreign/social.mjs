// `node social.mjs CHROMIUM BASE_URL PROVIDER CONTROL_URL`: signs Vera in through the provider of `provider.mjs`, which
// BASE_URL knows as PROVIDER, in a real browser: once, then with another address there, then while it goes away on the
// way. Prints as whom the server let her in the first two times, and what the browser showed the third time.
import { pause, run } from './browser.mjs';

/** Where the tab is; nothing while it is between two pages. */
async function look({ evaluate }) {
  const what = '{ href: location.href, ready: document.readyState === "complete", form: document.forms[0]?.id ?? "" }';
  try {
    const seen = await evaluate(`(${what})`);
    return seen.ready ? { ...seen, url: new URL(seen.href) } : undefined;
  } catch (error) {
    if (/navigated|context/i.test(error.message)) return undefined;
    throw error;
  }
}

async function go({ ask }, url) {
  const { errorText } = await ask('Page.navigate', { url });
  if (errorText) throw new Error(`${url}: ${errorText}`);
}

/** The forms of the provider: who are you, and may the application know? */
const ANSWERS = {
  login: 'document.forms.login.elements.login.value = "vera"; document.forms.login.querySelector("button").click()',
  consent: 'document.forms.consent.querySelector("button").click()',
};

/** From the server to the provider, through its pages, and back to a page of the server. */
async function signIn(tab, base, provider, onTheWay = async () => {}) {
  await go(tab, 'about:blank');
  await go(tab, new URL(`/v1/auth/oauth/${provider}/start?return_to=/docs`, base).href);
  const answered = new Set();
  for (;;) {
    const seen = await look(tab);
    if (seen?.url.origin === base) return seen.url;
    if (seen && Object.hasOwn(ANSWERS, seen.form) && !answered.has(seen.href)) {
      answered.add(seen.href);
      if (seen.form === 'login') await onTheWay();
      await tab.evaluate(ANSWERS[seen.form]);
    } else if (seen && seen.url.protocol !== 'about:' && !seen.form) {
      throw new Error(`${seen.href} is not a page to sign in at: ${await text(tab)}`);
    }
    await pause();
  }
}

const text = ({ evaluate }) => evaluate('document.body.innerText.slice(0, 2_000)');

/** As whom the server lets in whoever came back to it with a code. */
async function exchange(tab, base, back) {
  const code = back.searchParams.get('code');
  if (back.pathname !== '/docs' || !code) throw new Error(`back at ${back.href}: ${await text(tab)}`);
  // A page of the server that may call it.
  const page = new URL('/dev/passkeys', base).href;
  await go(tab, page);
  while ((await look(tab))?.href !== page) await pause();
  const { status, answer } = await tab.evaluate(`(async () => {
    const response = await fetch("/v1/auth/oauth/exchange", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ code: ${JSON.stringify(code)} }),
    });
    return { status: response.status, answer: await response.text() };
  })()`);
  if (status !== 200) throw new Error(`the exchange answers ${status}: ${answer}`);
  const { user, session } = JSON.parse(answer);
  if (!user) throw new Error(`the exchange lets nobody in: ${answer}`);
  return { id: user.id, email: user.email, amr: session.amr };
}

await run('CHROMIUM BASE_URL PROVIDER CONTROL_URL', async (tab, given, provider, control) => {
  const base = new URL(given).origin;
  const change = async (what) => {
    const response = await fetch(new URL('/control', control), { method: 'POST', body: JSON.stringify(what) });
    if (response.status !== 204) throw new Error(`${JSON.stringify(what)} is answered with ${response.status}`);
  };
  const visit = async () => exchange(tab, base, await signIn(tab, base, provider));

  const first = await visit();
  await change({ email: 'vera@another.example' });
  const second = await visit();
  try {
    const { pathname } = await signIn(tab, base, provider, () => change({ down: true }));
    const status = await tab.evaluate('performance.getEntriesByType("navigation")[0].responseStatus');
    return { first, second, away: { path: pathname, status, text: await text(tab) } };
  } finally {
    await change({ down: false });
  }
});
