// A service in JavaScript, with jose: mints and verifies tokens, makes and names keys.
//
// Run as `token_peer.mjs OPERATION` with a JSON array of requests on stdin, where private keys come
// in too. Writes the array of answers to stdout.

import { createHash, createPrivateKey, randomUUID, webcrypto } from 'node:crypto'
import { readFileSync } from 'node:fs'

globalThis.crypto ??= webcrypto // Node.js 18 has it under another name.
const jose = await import('jose')

async function privateKey({ jwk, pem }) {
  if (jwk) return jose.importJWK(jwk)
  // jose itself reads PKCS#8 alone.
  return pem.includes('EC PRIVATE KEY') ? createPrivateKey(pem) : jose.importPKCS8(pem, 'ES256')
}

async function publicKey({ jwk, pem }) {
  return jwk ? jose.importJWK(jwk) : jose.importSPKI(pem, 'ES256', { extractable: true })
}

const operations = {
  async mint({ key, kid, issuer, audience }) {
    const token = await new jose.SignJWT()
      .setProtectedHeader({ alg: 'ES256', kid })
      .setIssuer(issuer)
      .setSubject(issuer)
      .setAudience(audience)
      .setIssuedAt()
      .setExpirationTime('5 minutes')
      .setJti(randomUUID())
      .sign(await privateKey(key))
    return { token }
  },

  async mint_unsigned({ issuer, audience }) {
    const token = new jose.UnsecuredJWT().setIssuer(issuer).setSubject(issuer).setAudience(audience)
    return { token: token.encode() }
  },

  async verify({ key, token, issuer, audience }) {
    try {
      const { protectedHeader, payload } = await jose.jwtVerify(token, await publicKey(key), {
        algorithms: ['ES256'],
        typ: 'JWT',
        issuer,
        audience,
        requiredClaims: ['iss', 'sub', 'aud', 'iat', 'exp', 'jti'],
      })
      return { header: protectedHeader, claims: payload }
    } catch (error) {
      if (!(error instanceof jose.errors.JOSEError)) throw error
      return { refused: error.claim ? `${error.code} ${error.claim}` : error.code }
    }
  },

  // Says nothing about a token that it accepts, with the contract's leeway and issuers.
  async accepts({ key, token, issuer, audience }) {
    try {
      await jose.jwtVerify(token, await publicKey(key), {
        algorithms: ['ES256'],
        issuer,
        audience,
        clockTolerance: 30,
        requiredClaims: ['iss', 'sub', 'aud', 'iat', 'exp'],
      })
      return {}
    } catch (error) {
      if (!(error instanceof jose.errors.JOSEError)) throw error
      return { refused: `${error.code}: ${error.message}` }
    }
  },

  async name({ key }) {
    const imported = await publicKey(key)
    const pem = await jose.exportSPKI(imported)
    const spki = Buffer.from(pem.replace(/-----[A-Z ]+-----/g, ''), 'base64')
    return {
      fingerprint: createHash('sha256').update(spki).digest('base64url'),
      thumbprint: await jose.calculateJwkThumbprint(await jose.exportJWK(imported)),
    }
  },

  async generate() {
    const { privateKey } = await jose.generateKeyPair('ES256', { extractable: true })
    return { key: { jwk: { ...(await jose.exportJWK(privateKey)), alg: 'ES256' } } }
  },
}

const requests = JSON.parse(readFileSync(0, 'utf8'))
const answers = await Promise.all(requests.map(operations[process.argv[2]]))
console.log(JSON.stringify(answers))
