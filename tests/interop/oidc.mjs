// An OpenID provider with the keys that are named, for checks/oidc.py: node oidc.mjs MODULE PORT ISSUER STORE KID...
// STORE keeps the keys, so that a restart with other names is a rotation.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [module, port, issuer, store, ...kids] = process.argv.slice(2);
const { OAuth2Server } = await import(pathToFileURL(module).href);
const server = new OAuth2Server();
const known = existsSync(store) ? JSON.parse(readFileSync(store, 'utf8')) : {};
for (const kid of kids) {
  if (known[kid]) {
    await server.issuer.keys.add(known[kid]);
  } else {
    await server.issuer.keys.generate('RS256', { kid });
    known[kid] = server.issuer.keys.toJSON(true).find((key) => key.kid === kid);
  }
}
writeFileSync(store, JSON.stringify(known), { mode: 0o600 });
await server.start(Number(port), '127.0.0.1');
server.issuer.url = issuer;
