// The checks of this driver: runs them, prints one line each, as xtask's driver protocol wants it.
'use strict';

const POLL_INTERVAL_MS = 20;
const SOON_MS = 30_000;
// The client looks for the queues of its retry topic at its next route poll, after 30 s.
const AFTER_ROUTE_POLL_MS = 90_000;

function parseArguments() {
  const given = {};
  const words = process.argv.slice(2);
  for (let i = 0; i + 1 < words.length; i += 2) given[words[i].replace(/^--/, '')] = words[i + 1];
  return { nameServer: given['name-server'], broker: given.broker, only: given.only || '' };
}

async function until(what, condition, limitMs = SOON_MS) {
  const deadline = Date.now() + limitMs;
  let last;
  while (Date.now() < deadline) {
    try {
      if (await condition()) return;
      last = undefined;
    } catch (error) {
      last = error;
    }
    await new Promise(resolve => setTimeout(resolve, POLL_INTERVAL_MS));
  }
  throw new Error(`after ${limitMs} ms still not: ${what}${last ? ` (${last.message})` : ''}`);
}

function report(line) {
  process.stdout.write(`${line.replaceAll('\n', ' ')}\n`);
}

async function passes(name, body) {
  const started = Date.now();
  const closers = [];
  try {
    await body(closer => closers.push(closer));
    report(`PASS ${name} (${Date.now() - started} ms)`);
    return true;
  } catch (error) {
    console.error(error);
    report(`FAIL ${name}: ${error.message}`);
    return false;
  } finally {
    for (const closer of closers.reverse()) await closer().catch(error => console.error(error));
  }
}

// Runs all checks at once; they wait for the server most of the time.
async function run(checks, only) {
  const chosen = checks.filter(([name]) => name.includes(only));
  const outcomes = await Promise.all(chosen.map(([name, body]) => passes(name, body)));
  return outcomes.every(Boolean) ? 0 : 1;
}

module.exports = { AFTER_ROUTE_POLL_MS, parseArguments, report, run, until };
