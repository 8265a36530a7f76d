// A real OpenID Connect provider on loopback, for tests. Its state is in memory, and goes with it.
//
//   node server.mjs PATH-OF-OIDC-PROVIDER PORT    with CONTROL, MANAGER_SECRET and ISSUER in the environment
//
// Tokens that a person would have to consent to are made by POST /_test/grant with CONTROL as bearer: {client_id, sub,
// scope} → {access_token, refresh_token}. They are the provider's own, saved by its own models; all else is untouched.
// Clients that are registered with the initial access token of the policy `rotate` get a new secret with each update.
import { randomBytes } from 'node:crypto';
import { pathToFileURL } from 'node:url';

const [library, port] = process.argv.slice(2);
const { CONTROL, MANAGER_SECRET } = process.env;
const { default: Provider } = await import(pathToFileURL(`${library}/lib/index.js`));
const { generateKeyPair, exportJWK } = await import(pathToFileURL(`${library}/../jose/dist/webapi/index.js`));
const issuer = process.env.ISSUER;

const { privateKey } = await generateKeyPair('RS256', { extractable: true });
const signing = { ...(await exportJWK(privateKey)), alg: 'RS256', use: 'sig', kid: 'tests' };
const grants = ['client_credentials', 'refresh_token', 'authorization_code'];
const resources = { 'urn:jwt': 'jwt', 'urn:opaque': 'opaque' };

const provider = new Provider(issuer, {
  jwks: { keys: [signing] },
  cookies: { keys: [randomBytes(24).toString('hex')] },
  clients: [{
    client_id: 'clawback',
    client_secret: MANAGER_SECRET,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  }],
  scopes: ['openid', 'offline_access', 'read'],
  findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  // Whoever is asked whether a client may revoke another's token: the responder's client may.
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: {
      enabled: true,
      allowedPolicy: (_ctx, client, token) => client.clientId === 'clawback' || client.clientId === token.clientId,
    },
    userinfo: { enabled: true },
    registration: {
      enabled: true,
      initialAccessToken: true,
      policies: {
        rotate: (ctx, properties) => {
          if (ctx.method === 'PUT') properties.client_secret = randomBytes(32).toString('base64url');
        },
        keep: () => {},
      },
    },
    registrationManagement: {
      enabled: true,
      rotateRegistrationAccessToken: (ctx) => ctx.oidc.client.clientName !== 'steady',
    },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: (_ctx, indicator) => ({
        scope: 'read', accessTokenTTL: 3600, accessTokenFormat: resources[indicator] ?? 'opaque',
      }),
    },
  },
  ttl: { AccessToken: 3600, RefreshToken: 86400, Grant: 86400, ClientCredentials: 3600 },
});

const made = {
  async grant({ client_id: clientId, sub, scope }) {
    const client = await provider.Client.find(clientId);
    const grant = new provider.Grant({ accountId: sub, clientId });
    grant.addOIDCScope(scope);
    const grantId = await grant.save();
    const common = { accountId: sub, client, grantId, scope, gty: 'authorization_code' };
    return {
      access_token: await new provider.AccessToken(common).save(),
      refresh_token: await new provider.RefreshToken({ ...common, rotations: 0 }).save(),
    };
  },
  async initial({ policy }) {
    return { token: await new provider.InitialAccessToken({ policies: [policy] }).save() };
  },
  async forget({ registration_access_token: token }) {
    const found = await provider.RegistrationAccessToken.find(token);
    await found?.destroy();
    return {};
  },
  // What its database holds of one client and its tokens, and putting that back, as a restored backup would.
  async backup({ client_id: clientId, access_token: access, refresh_token: refresh }) {
    const kept = [];
    const keep = async (model, id) => {
      const payload = await provider[model].adapter.find(id);
      kept.push({ model, id, payload });
      return payload;
    };
    await keep('Client', clientId);
    await keep('RefreshToken', refresh);
    await keep('Grant', (await keep('AccessToken', access)).grantId);
    return { kept };
  },
  async restore({ kept }) {
    for (const { model, id, payload } of kept) await provider[model].adapter.upsert(id, payload, 3600);
    return {};
  },
};

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/_test/')) {
    await next();
    return;
  }
  const call = made[ctx.path.slice('/_test/'.length)];
  if (!call || ctx.method !== 'POST' || ctx.get('authorization') !== `Bearer ${CONTROL}`) {
    ctx.status = 403;
    return;
  }
  const chunks = [];
  for await (const chunk of ctx.req) chunks.push(chunk);
  ctx.body = await call(JSON.parse(Buffer.concat(chunks).toString()));
});

provider.listen(Number(port), '127.0.0.1');
