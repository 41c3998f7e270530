// kinesalite ends when a client is killed in the middle of a request; a server should not.
process.on('uncaughtException', function(error) {
  if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE') {
    console.error(error)
    process.exit(1)
  }
})
