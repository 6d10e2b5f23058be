// The driver of Node-RED, as a node of the flow: what it sends goes to an `mqtt in` or `mqtt out`,
// what it gets is a message, or word that something is complete or has failed.

const { createInterface } = require('node:readline')

const ANSWER_MS = 20000
const SESSION_EXPIRY_S = 3600
const ALIAS = 1

module.exports = function (RED) {
  // Of the broker nodes in the flow, one per client: they are given out by name.
  const slots = new Map()
  // What is not complete yet, by number: a message is copied on its way, so it cannot hold more.
  const pending = new Map()
  let sent = 0

  class Client {
    constructor (node, slot) {
      Object.assign(this, { node, slot, messages: [], waiting: [] })
    }

    // Done once the node that gets it says so: `port` 0 is its `mqtt in`, 1 its `mqtt out`.
    send (port, message) {
      const outputs = []
      outputs[2 * (this.slot - 1) + port] = { ...message, number: ++sent }
      return new Promise((resolve, reject) => {
        pending.set(sent, { resolve, reject })
        this.node.send(outputs)
      })
    }

    async connect ({ url, version, id, clean, will }) {
      // It keeps what it has subscribed to and would do it again.
      if (clean) await this.send(0, { action: 'unsubscribe', topic: true })
      this.messages = []
      const v5 = version === '5.0'
      await this.send(1, {
        action: 'connect',
        broker: {
          broker: url,
          usetls: /^(mqtts|wss):/.test(url),
          clientid: id,
          protocolVersion: v5 ? 5 : 4,
          cleansession: clean,
          sessionExpiry: v5 && !clean ? SESSION_EXPIRY_S : 0,
          will: will ? { ...will, payload: Buffer.from(will.payload, 'hex'), retain: false } : {}
        }
      })
      return { session_present: null }
    }

    async subscribe ({ topic, qos }) {
      // The node does not tell when the broker has answered.
      const suback = new Promise((resolve) => {
        const { client } = RED.nodes.getNode(`broker-${this.slot}`)
        client.on('packetreceive', function look (packet) {
          if (packet.cmd !== 'suback') return
          client.removeListener('packetreceive', look)
          resolve({ granted: packet.granted[0] })
        })
      })
      await this.send(0, { action: 'subscribe', topic: { topic, qos, rap: false, datatype: 'buffer' } })
      return suback
    }

    async publish ({ topic, payload, qos, retain, properties: p }) {
      await this.send(1, {
        topic,
        payload: Buffer.from(payload, 'hex'),
        qos,
        retain,
        ...(p && {
          userProperties: p.user,
          contentType: p.content_type,
          responseTopic: p.response_topic,
          correlationData: Buffer.from(p.correlation_data, 'hex'),
          messageExpiryInterval: p.message_expiry_s
        })
      })
    }

    // It leaves out the topic by itself once the alias is known.
    async publish_alias ({ topic, payload, qos, retain }) {
      for (let i = 0; i < 2; i++) {
        await this.send(1, { topic, payload: Buffer.from(payload, 'hex'), qos, retain, topicAlias: ALIAS })
      }
    }

    next () {
      if (this.messages.length > 0) return this.messages.shift()
      return new Promise((resolve) => this.waiting.push(resolve))
    }

    got (message) {
      if (this.waiting.length > 0) this.waiting.shift()(message)
      else this.messages.push(message)
    }

    disconnect () {
      return this.send(1, { action: 'disconnect' })
    }
  }

  function told (msg) {
    return {
      topic: msg.topic,
      payload: msg.payload.toString('hex'),
      qos: msg.qos,
      retain: msg.retain,
      properties: {
        user: { ...msg.userProperties },
        content_type: msg.contentType ?? null,
        response_topic: msg.responseTopic ?? null,
        correlation_data: msg.correlationData?.toString('hex') ?? null,
        message_expiry_s: msg.messageExpiryInterval ?? null,
        identifiers: null
      }
    }
  }

  function inTime (promise) {
    let late
    const timeout = new Promise((resolve, reject) => {
      late = setTimeout(() => reject(new Error('no answer')), ANSWER_MS)
    })
    return Promise.race([promise, timeout]).finally(() => clearTimeout(late))
  }

  function DriverNode (config) {
    RED.nodes.createNode(this, config)
    this.on('input', (msg, send, done) => {
      if (msg.error) pending.get(msg.number)?.reject(new Error(msg.error.message))
      else if (msg.number) pending.get(msg.number)?.resolve({})
      else slots.get(Number(msg.slot)).got(told(msg))
      done()
    })
    const commands = createInterface({ input: process.stdin })
    RED.events.once('flows:started', async () => {
      const clients = new Map()
      for await (const line of commands) {
        let answer
        try {
          const { do: what, client: name, ...command } = JSON.parse(line)
          if (!clients.has(name)) {
            const client = new Client(this, slots.size + 1)
            slots.set(client.slot, client)
            clients.set(name, client)
          }
          answer = { ok: await inTime(clients.get(name)[what](command)) ?? {} }
        } catch (error) {
          answer = { error: String(error?.stack ?? error) }
        }
        process.stdout.write(JSON.stringify(answer) + '\n')
      }
      process.exit(0)
    })
  }

  RED.nodes.registerType('driver', DriverNode)
}
