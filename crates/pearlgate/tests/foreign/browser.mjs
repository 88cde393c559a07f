// A real browser for the scripts beside this one, driven over its DevTools: it starts, is asked, and is gone again.
//
// Node 18 has no WebSocket, and DevTools are spoken over one: so a small one stands below (RFC 6455).
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

const PATIENCE = 60_000;
const BETWEEN = 100;
const TEXT = 0x1;
const CLOSE = 0x8;
const PING = 0x9;
const PONG = 0xa;

/** A moment, until something is looked at again. */
export const pause = () => new Promise((resolve) => setTimeout(resolve, BETWEEN));

/** A client's frame: whole, and masked as a client's have to be (§5.1 to §5.3). */
function frame(opcode, payload) {
  const size = payload.length;
  let head;
  if (size < 126) {
    head = Buffer.from([0x80 | opcode, 0x80 | size]);
  } else if (size < 65_536) {
    head = Buffer.from([0x80 | opcode, 0x80 | 126, 0, 0]);
    head.writeUInt16BE(size, 2);
  } else {
    head = Buffer.alloc(10);
    head[0] = 0x80 | opcode;
    head[1] = 0x80 | 127;
    head.writeBigUInt64BE(BigInt(size), 2);
  }
  const mask = randomBytes(4);
  const masked = Buffer.from(payload.map((byte, at) => byte ^ mask[at % 4]));
  return Buffer.concat([head, mask, masked]);
}

/** The first frame of what has arrived, and how long it is; undefined while it is not whole. */
function unframe(arrived) {
  if (arrived.length < 2) return undefined;
  let [from, size] = [2, arrived[1] & 0x7f];
  if (size === 126) {
    if (arrived.length < 4) return undefined;
    [from, size] = [4, arrived.readUInt16BE(2)];
  } else if (size === 127) {
    if (arrived.length < 10) return undefined;
    [from, size] = [10, Number(arrived.readBigUInt64BE(2))];
  }
  if (arrived.length < from + size) return undefined;
  const [whole, opcode] = [(arrived[0] & 0x80) !== 0, arrived[0] & 0x0f];
  return { whole, opcode, payload: arrived.subarray(from, from + size), length: from + size };
}

/** A WebSocket to this machine: `onText` gets each message, `onEnd` a reason, once. */
function openSocket(port, path, onText, onEnd) {
  return new Promise((resolve, reject) => {
    const key = randomBytes(16).toString('base64');
    const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    const socket = connect(port, '127.0.0.1');
    let [arrived, open] = [Buffer.alloc(0), false];
    const end = (reason) => {
      socket.destroy();
      reject(reason);
      onEnd(reason);
    };
    socket.on('error', end);
    socket.on('close', () => end(new Error('the browser hung up')));
    socket.on('connect', () => {
      socket.write(
        `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
          `Sec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\n\r\n`,
      );
    });
    socket.on('data', (data) => {
      arrived = Buffer.concat([arrived, data]);
      if (!open) {
        const at = arrived.indexOf('\r\n\r\n');
        if (at < 0) return;
        const [status, ...lines] = arrived.subarray(0, at).toString('latin1').split('\r\n');
        const named = lines.map((line) => line.split(/:\s*/, 2)).find(([name]) => /^sec-websocket-accept$/i.test(name));
        if (!/^HTTP\/1\.1 101\b/.test(status) || named?.[1]?.trim() !== accept) {
          end(new Error(`the browser does not open a WebSocket: ${status}`));
          return;
        }
        arrived = arrived.subarray(at + 4);
        open = true;
        resolve({ send: (text) => socket.write(frame(TEXT, Buffer.from(text))), close: () => socket.destroy() });
      }
      for (let next = unframe(arrived); next; next = unframe(arrived)) {
        arrived = arrived.subarray(next.length);
        if (next.opcode === PING) {
          socket.write(frame(PONG, next.payload));
        } else if (next.opcode === CLOSE || !next.whole || ![TEXT, PONG].includes(next.opcode)) {
          end(new Error(`the browser sent a frame that ends this: ${next.opcode}`));
          return;
        } else if (next.opcode === TEXT) {
          onText(next.payload.toString('utf8'));
        }
      }
    });
  });
}

/** The browser's DevTools: one method after the other, each with its answer. */
async function openDevTools(port, path) {
  const waiting = new Map();
  let [last, over] = [0, undefined];
  const socket = await openSocket(
    port,
    path,
    (text) => {
      const { id, result, error } = JSON.parse(text);
      const asked = waiting.get(id);
      waiting.delete(id);
      if (error) asked?.reject(new Error(`${asked.method}: ${error.message}`));
      else asked?.resolve(result);
    },
    (reason) => {
      over = reason;
      for (const asked of waiting.values()) asked.reject(reason);
      waiting.clear();
    },
  );
  const ask = (method, params = {}, sessionId = undefined) =>
    new Promise((resolve, reject) => {
      if (over) {
        reject(over);
        return;
      }
      last += 1;
      waiting.set(last, { method, resolve, reject });
      socket.send(JSON.stringify({ id: last, method, params, sessionId }));
    });
  return { ask, close: socket.close };
}

/** A browser of its own, in a directory of its own. */
function start(chromium, home) {
  const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run'];
  const where = ['--remote-debugging-port=0', `--user-data-dir=${home}`, 'about:blank'];
  // A process group of its own, so that its helpers end with it.
  const child = spawn(chromium, [...flags, ...where], { detached: true, stdio: ['ignore', 'ignore', 'pipe'] });
  const browser = { child, said: '', over: undefined };
  browser.ended = new Promise((resolve) => {
    child.on('error', (error) => resolve((browser.over = error.message)));
    child.on('exit', (code, signal) => resolve((browser.over = `it ended with ${code ?? signal}`)));
  });
  child.stderr.on('data', (data) => {
    browser.said = (browser.said + data).slice(-2_000);
  });
  return browser;
}

/** Where it listens: it writes the port and the path into a file as soon as it does. */
async function devToolsOf(browser, home) {
  for (;;) {
    if (browser.over) throw new Error(`the browser does not start: ${browser.over}\n${browser.said}`);
    try {
      const [port, path] = readFileSync(join(home, 'DevToolsActivePort'), 'utf8').trim().split('\n');
      if (path) return { port: Number(port), path };
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
    }
    await pause();
  }
}

/** A tab of the browser: `ask` for a method of DevTools, `evaluate` for an expression in the page that is there. */
async function openTab(devTools) {
  const { targetId } = await devTools.ask('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await devTools.ask('Target.attachToTarget', { targetId, flatten: true });
  const ask = (method, params) => devTools.ask(method, params, sessionId);
  const evaluate = async (expression) => {
    const { result, exceptionDetails } = await ask('Runtime.evaluate', {
      expression,
      awaitPromise: true,
      returnByValue: true,
      userGesture: true,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  };
  await ask('Page.enable');
  await ask('Emulation.setFocusEmulationEnabled', { enabled: true });
  return { ask, evaluate };
}

/** What comes of `work` in a tab of a browser that nobody used before, and that is gone afterwards. */
async function inBrowser(chromium, work) {
  const home = mkdtempSync(join(tmpdir(), 'pearlgate-browser-'));
  const browser = start(chromium, home);
  let [late, devTools] = [undefined, undefined];
  const giveUp = new Promise((_, reject) => {
    late = setTimeout(() => reject(new Error(`not done after ${PATIENCE / 1_000} s\n${browser.said}`)), PATIENCE);
    for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => reject(new Error(signal)));
  });
  const all = async () => {
    const { port, path } = await devToolsOf(browser, home);
    devTools = await openDevTools(port, path);
    return await work(await openTab(devTools));
  };
  try {
    return await Promise.race([all(), giveUp]);
  } finally {
    clearTimeout(late);
    devTools?.close();
    if (!browser.over) {
      try {
        process.kill(-browser.child.pid, 'SIGKILL');
      } catch {
        browser.child.kill('SIGKILL');
      }
      await browser.ended;
    }
    rmSync(home, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

/** The whole of a script: `work` gets a tab and the arguments after CHROMIUM; what it answers is printed as JSON. */
export async function run(usage, work) {
  const [chromium, ...given] = process.argv.slice(2);
  try {
    if (given.length !== usage.split(' ').length - 1 || given.includes('')) {
      throw new Error(`usage: node ${basename(process.argv[1])} ${usage}`);
    }
    console.log(JSON.stringify(await inBrowser(chromium, (tab) => work(tab, ...given))));
  } catch (error) {
    console.error(error.message ?? error);
    process.exitCode = 1;
  }
  // What still waits for a browser that is gone waits no longer.
  process.exit();
}
