// The driver of MQTT.js in a page of Chromium. The page comes from here, gets what it is told as
// server-sent events and posts its answers.

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream, mkdirSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { serve } from '../driver.mjs'

const here = import.meta.dirname ?? new URL('.', import.meta.url).pathname
const files = {
  '/': [join(here, 'page.html'), 'text/html'],
  '/client.mjs': [join(here, '../mqttjs/client.mjs'), 'text/javascript'],
  '/bundle.mjs': [process.env.MQTTJS_BUNDLE, 'text/javascript']
}
const { CA_FILE: caFile, SCRATCH_DIR: home } = process.env

const server = createServer()
let answered
const page = new Promise((resolve) => {
  server.on('request', async (request, response) => {
    if (request.url === '/commands') {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
      response.flushHeaders()
      resolve(response)
    } else if (request.url === '/answers') {
      let text = ''
      for await (const part of request.setEncoding('utf8')) text += part
      response.end()
      answered(JSON.parse(text))
    } else if (files[request.url]) {
      const [file, type] = files[request.url]
      response.writeHead(200, { 'content-type': type })
      createReadStream(file).pipe(response)
    } else {
      response.writeHead(404).end()
    }
  })
})
server.listen(0, '127.0.0.1')
await once(server, 'listening')

// On Linux it trusts, beside its own list, what is in this database below its home.
const database = join(home, '.pki/nssdb')
mkdirSync(database, { recursive: true })
const certutil = (...args) => execFileSync('certutil', ['-d', `sql:${database}`, ...args])
certutil('-N', '--empty-password')
certutil('-A', '-n', 'test', '-t', 'C,,', '-i', caFile)
// No sandbox: tests run as root too, where there is none, and the page is ours.
const chromium = spawn('chromium', [
  '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--log-level=3',
  `--user-data-dir=${join(home, 'profile')}`, `http://127.0.0.1:${server.address().port}/`
], { env: { ...process.env, HOME: home, TMPDIR: home }, stdio: ['ignore', 'ignore', 'inherit'] })
chromium.on('error', (error) => { throw error })
chromium.on('exit', (code, signal) => { throw new Error(`chromium ended: ${code ?? signal}`) })

const commands = await page
await serve((command) => new Promise((resolve, reject) => {
  answered = ({ ok, error }) => error === undefined ? resolve(ok) : reject(new Error(error))
  commands.write(`data: ${JSON.stringify(command)}\n\n`)
}))
