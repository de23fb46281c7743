// Decodes an inline trace from standard input, as Apollo's own gateway does, and prints it as JSON.
import { readFileSync } from 'node:fs'

import { Trace } from '@apollo/usage-reporting-protobuf'

const trace = Trace.decode(Buffer.from(readFileSync(0, 'utf8'), 'base64'))
console.log(JSON.stringify(Trace.toObject(trace, { longs: Number, defaults: true })))
