// `node webhooks.mjs`: messages in the eyes of the Standard Webhooks library, which knows nothing of us. Reads a JSON list of
// {secret, headers, body} and prints a list of "ok" or what is wrong with each.
import { Webhook } from 'standardwebhooks';

let text = '';
for await (const chunk of process.stdin) text += chunk;
const said = JSON.parse(text).map(({ secret, headers, body }) => {
  try {
    new Webhook(secret).verify(body, headers);
    return 'ok';
  } catch (error) {
    return error.message;
  }
});
console.log(JSON.stringify(said));
