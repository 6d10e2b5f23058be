// Publishes on each node and receives on each other one with MQTT.js over WebSocket, as it is.
//
// usage: mqttjs_all.js 3.1.1|5.0 PREFIX ws://HOST:PORT/mqtt...
'use strict'

const assert = require('node:assert')
const mqtt = require('mqtt')

const ANSWER_MS = 20000
const [version, prefix, ...urls] = process.argv.slice(2)
const protocolVersion = version === '5.0' ? 5 : 4

// A client whose messages wait until they are asked for.
async function connect (url, clientId, options = {}) {
  const client = await mqtt.connectAsync(url, {
    clientId, protocolVersion, reconnectPeriod: 0, connectTimeout: ANSWER_MS, ...options
  }, false)
  const messages = []
  const waiting = []
  client.on('message', (topic, payload, packet) => {
    const message = { topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain }
    if (waiting.length > 0) waiting.shift()(message)
    else messages.push(message)
  })
  const next = () => messages.length > 0
    ? Promise.resolve(messages.shift())
    : new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${clientId}: no message`)), ANSWER_MS)
      waiting.push((message) => { clearTimeout(late); resolve(message) })
    })
  const subscribe = async (topic, qos) => {
    const granted = await client.subscribeAsync(topic, { qos })
    assert.deepStrictEqual(granted.map((g) => g.qos), [qos])
  }
  return { client, next, subscribe }
}

async function main () {
  const all = await Promise.all(urls.map((url, i) => connect(url, `${prefix}-${i}`)))
  for (const [i, sender] of all.entries()) {
    for (const [j, receiver] of all.entries()) {
      for (const qos of [0, 1, 2]) {
        const topic = `${prefix}/${i}/${j}/${qos}`
        await receiver.subscribe(topic, qos)
        await sender.client.publishAsync(topic, `${i}${j}${qos}`, { qos })
        assert.deepStrictEqual(await receiver.next(), { topic, payload: `${i}${j}${qos}`, qos, retain: false })
      }
    }
  }
  for (const [i, sender] of all.entries()) {
    const receiver = all[(i + 1) % all.length]
    const kept = `${prefix}/kept/${i}`
    await sender.client.publishAsync(kept, 'kept', { qos: 1, retain: true })
    await receiver.subscribe(kept, 1)
    assert.deepStrictEqual(await receiver.next(), { topic: kept, payload: 'kept', qos: 1, retain: true })
    const will = `${prefix}/will/${i}`
    await receiver.subscribe(will, 1)
    const dies = await connect(urls[i], `${prefix}-dies-${i}`, { will: { topic: will, payload: 'gone', qos: 1 } })
    dies.client.stream.destroy()
    assert.deepStrictEqual(await receiver.next(), { topic: will, payload: 'gone', qos: 1, retain: false })
  }
  await Promise.all(all.map(({ client }) => client.endAsync()))
  console.log('ok')
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1) })
