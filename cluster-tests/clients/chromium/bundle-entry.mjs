// What the page takes from npm, made one file by scripts/test-tools.
export { Buffer } from 'buffer'
export { default as mqtt } from 'mqtt'
