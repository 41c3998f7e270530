// kinesis-mock listens on all addresses; a server of the tests listens on 127.0.0.1 only.
const net = require('net')
const listen = net.Server.prototype.listen

net.Server.prototype.listen = function(first, ...rest) {
  if (first !== null && typeof first === 'object') return listen.call(this, { ...first, host: '127.0.0.1' }, ...rest)
  if (typeof rest[0] === 'string') rest.shift()
  return listen.call(this, first, '127.0.0.1', ...rest)
}
