// `node passkeys.mjs CHROMIUM BASE_URL ACCESS_TOKEN`: adds a passkey on `/dev/passkeys` and signs in with it, in a real
// browser with a virtual authenticator. Prints what the page said, or what went wrong on standard error.
import { pause, run } from './browser.mjs';

async function tryPasskeys({ ask, evaluate }, base, token) {
  const text = (id) => evaluate(`document.getElementById(${JSON.stringify(id)})?.textContent ?? ""`);
  const said = async (id) => {
    for (;;) {
      const failed = await text('failed');
      if (failed) throw new Error(`the page says: ${failed}`);
      const line = await text(id);
      if (line) return line;
      await pause();
    }
  };

  await ask('WebAuthn.enable');
  await ask('WebAuthn.addVirtualAuthenticator', {
    options: {
      protocol: 'ctap2',
      transport: 'internal',
      hasResidentKey: true,
      hasUserVerification: true,
      isUserVerified: true,
      automaticPresenceSimulation: true,
    },
  });
  const page = new URL('/dev/passkeys', base).href;
  const { errorText } = await ask('Page.navigate', { url: page });
  if (errorText) throw new Error(`${page}: ${errorText}`);
  const there = `location.href === ${JSON.stringify(page)} && document.readyState === "complete"`;
  while (!(await evaluate(there))) await pause();
  if (!(await evaluate('!!document.getElementById("token")'))) {
    throw new Error(`${page} is not the page: ${await evaluate('document.body.innerText.slice(0, 500)')}`);
  }

  await evaluate(`document.getElementById("token").value = ${JSON.stringify(token)}`);
  await evaluate('document.getElementById("add").click()');
  const added = await said('added');
  await evaluate('document.getElementById("sign-in").click()');
  return { added, signed_in: await said('signed-in') };
}

await run('CHROMIUM BASE_URL ACCESS_TOKEN', tryPasskeys);
