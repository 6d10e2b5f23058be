// Node-RED as it is: a flow file, this, and one node of ours in the flow that is the driver.

const path = require('node:path')

module.exports = {
  userDir: process.env.SCRATCH_DIR,
  flowFile: path.join(__dirname, 'flows.json'),
  nodesDir: path.join(__dirname, 'nodes'),
  // Neither the editor nor an API.
  httpAdminRoot: false,
  httpNodeRoot: false,
  uiHost: '127.0.0.1',
  uiPort: 0,
  credentialSecret: false,
  telemetry: { enabled: false },
  logging: { console: { level: 'warn', metrics: false, audit: false } }
}
