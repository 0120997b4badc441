// An OpenID provider (the npm package oidc-provider) for the tests: node oidc.mjs FOLDER [PORT].
// It keeps its keys in FOLDER, so that it comes back as it was, prints its issuer, and mints tokens and rotates
// its keys under /test/.

import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import Provider from 'oidc-provider'

const [folder, port = '0'] = process.argv.slice(2)
const file = join(folder, 'keys.json')

function newKey(alg) {
  const { privateKey } =
    alg === 'ES256'
      ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
      : generateKeyPairSync('rsa', { modulusLength: 2048 })
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg }
}

let keys = existsSync(file) ? JSON.parse(readFileSync(file)) : [newKey('ES256'), newKey('RS256')]
writeFileSync(file, JSON.stringify(keys))

const resource = (alg) => ({
  scope: 'upload',
  audience: 'imgwire-gate',
  accessTokenFormat: 'jwt',
  jwt: { sign: { alg } },
})

let provider
function start(issuer) {
  provider = new Provider(issuer, {
    clients: [
      { client_id: 'spa', client_secret: 'spa-secret', redirect_uris: ['http://127.0.0.1/'] },
      { client_id: 'gate', client_secret: 'gate-secret', redirect_uris: [], response_types: [], grant_types: [] },
      {
        client_id: 'gate-post',
        client_secret: 'gate-secret',
        token_endpoint_auth_method: 'client_secret_post',
        redirect_uris: [],
        response_types: [],
        grant_types: [],
      },
    ],
    cookies: { keys: ['only for tests'] },
    jwks: { keys },
    features: {
      devInteractions: { enabled: false },
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true, allowedPolicy: () => true },
    },
  })
}

async function mint(user, alg) {
  const client = await provider.Client.find('spa')
  const grant = new provider.Grant({ accountId: user, clientId: 'spa' })
  grant.addOIDCScope('openid')
  const token = new provider.AccessToken({
    accountId: user,
    client,
    grantId: await grant.save(),
    gty: 'authorization_code',
    scope: 'openid',
  })
  if (alg) token.resourceServer = new provider.ResourceServer('urn:imgwire-gate', resource(alg))
  return token.save()
}

const server = createServer(async (request, response) => {
  const url = new URL(request.url, 'http://localhost')
  switch (url.pathname) {
    case '/test/token': // ?user=&alg= gives a JWT, without alg an opaque token
      response.end(await mint(url.searchParams.get('user'), url.searchParams.get('alg')))
      break
    case '/test/revoke':
      await (await provider.AccessToken.find(url.searchParams.get('token')))?.destroy()
      response.end()
      break
    case '/test/rotate': // new keys sign from now on; those before the last ones leave
      keys = [newKey('ES256'), newKey('RS256'), ...keys.slice(0, 2)]
      writeFileSync(file, JSON.stringify(keys))
      start(provider.issuer)
      response.end()
      break
    default:
      provider.callback()(request, response)
  }
})

server.listen(Number(port), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`
  start(issuer)
  console.log(issuer)
})
