// What the drivers in JavaScript have in common; what they are told is described in
// src/clients/driver.rs.

import { createInterface } from 'node:readline'

// Does what standard input says with `handle`, one after the other, and ends with it.
export async function serve (handle) {
  for await (const line of createInterface({ input: process.stdin })) {
    let answer
    try {
      answer = { ok: await handle(JSON.parse(line)) ?? {} }
    } catch (error) {
      answer = { error: String(error?.stack ?? error) }
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
  }
  process.exit(0)
}
