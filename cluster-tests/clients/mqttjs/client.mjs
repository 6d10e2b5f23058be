// MQTT.js, in Node.js or in a page; `mqtt` is the library.

const ANSWER_MS = 20000
const SESSION_EXPIRY_S = 3600
const ALIAS = 1

const toHex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

// The clients by name, and what can be done with each.
export function clients (mqtt, Buffer, tls) {
  const held = new Map()
  return async ({ do: what, client: name, ...command }) => {
    if (what === 'connect') {
      held.set(name, new Client(mqtt, (hex) => Buffer.from(hex, 'hex'), { ...command, tls }))
    }
    return held.get(name)[what](command)
  }
}

class Client {
  constructor (mqtt, fromHex, { url, version, id, clean, will, tls }) {
    this.fromHex = fromHex
    this.messages = []
    this.waiting = []
    const v5 = version === '5.0'
    this.mqtt = mqtt.connect(url, {
      clientId: id,
      protocolVersion: v5 ? 5 : 4,
      clean,
      reconnectPeriod: 0,
      connectTimeout: ANSWER_MS,
      ...(will && { will: { ...will, payload: fromHex(will.payload), retain: false } }),
      ...(v5 && { properties: { sessionExpiryInterval: clean ? 0 : SESSION_EXPIRY_S } }),
      ...tls
    })
    this.mqtt.on('message', (topic, payload, packet) => {
      const message = told(topic, payload, packet)
      if (this.waiting.length > 0) this.waiting.shift()(message)
      else this.messages.push(message)
    })
  }

  connect () {
    return new Promise((resolve, reject) => {
      this.mqtt.once('connect', (packet) => resolve({ session_present: packet.sessionPresent }))
      this.mqtt.once('error', reject)
      this.mqtt.once('close', () => reject(new Error('closed')))
    })
  }

  async subscribe ({ topic, qos, identifier }) {
    const options = { qos, ...(identifier && { properties: { subscriptionIdentifier: identifier } }) }
    const [granted] = await this.mqtt.subscribeAsync(topic, options)
    return { granted: granted.qos }
  }

  async publish ({ topic, payload, qos, retain, properties: p }) {
    await this.mqtt.publishAsync(topic, this.fromHex(payload), {
      qos,
      retain,
      ...(p && {
        properties: {
          userProperties: p.user,
          contentType: p.content_type,
          responseTopic: p.response_topic,
          correlationData: this.fromHex(p.correlation_data),
          messageExpiryInterval: p.message_expiry_s
        }
      })
    })
  }

  async publish_alias ({ topic, payload, qos, retain }) {
    const options = { qos, retain, properties: { topicAlias: ALIAS } }
    await this.mqtt.publishAsync(topic, this.fromHex(payload), options)
    await this.mqtt.publishAsync('', this.fromHex(payload), options)
  }

  next () {
    if (this.messages.length > 0) return this.messages.shift()
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error('no message')), ANSWER_MS)
      this.waiting.push((message) => { clearTimeout(late); resolve(message) })
    })
  }

  async disconnect () {
    await this.mqtt.endAsync()
  }
}

function told (topic, payload, { qos, retain, properties: p }) {
  const identifiers = p?.subscriptionIdentifier
  return {
    topic,
    payload: toHex(payload),
    qos,
    retain,
    properties: p && {
      user: { ...p.userProperties },
      content_type: p.contentType ?? null,
      response_topic: p.responseTopic ?? null,
      correlation_data: p.correlationData ? toHex(p.correlationData) : null,
      message_expiry_s: p.messageExpiryInterval ?? null,
      identifiers: identifiers === undefined ? null : [identifiers].flat()
    }
  }
}
