// The driver of MQTT.js in Node.js.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { serve } from '../driver.mjs'
import { clients } from './client.mjs'

// Through NODE_PATH, which `import` does not know.
const mqtt = createRequire(import.meta.url)('mqtt')
const tls = { ca: readFileSync(process.env.CA_FILE) }

serve(clients(mqtt, Buffer, tls))
